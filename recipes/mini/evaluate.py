"""The numbers of the model cards: ``python -m recipes.mini.evaluate`` (about ten minutes on two cores).

Thirty IEEE Harvard sentences that training never saw, spoken by every built-in speaker. Each stage adds one loss:

    source     Kokoro itself
    mel        its mel spectrum and pitch through the vocoder
    codec      its codes through decoder and vocoder
    teacher    the language model's own codes, at the default sampling
    untrained  the same weights under the window
    student    the weights that were trained for it

WER and CER by Whisper tiny.en, speaker similarity by resemblyzer, voicing by Praat. Then two hundred sentences of every
kind for failures, and the speed of the whole path. ``--write`` puts the tables into the README and the model cards.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soxr
import torch
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from recipes.mini import kokoro
from recipes.mini.analysis import pitch_of
from recipes.mini.corpus import prepare
from recipes.mini.sentences import HARVARD, robustness_sentences
from recipes.mini.speakers import SPEAKERS
from recipes.mini.train_vocoder import acoustics_of
from wandlib.evaluation.error_rates import Interval, bootstrap, count_errors, error_rates
from wandlib.evaluation.failures import failures
from wandlib.evaluation.measurement import reference_sounds
from wandlib.evaluation.recognizers import FasterWhisper, plain_english
from wandlib.evaluation.report import markdown_table, put_measured
from wandlib.evaluation.speakers import Resemblyzer, similarity
from wandlib.systems.base import Attention
from wandlib.systems.mini.features import SAMPLE_RATE, LogMel
from wandlib.systems.mini.system import ASSETS, MiniSystem

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
CARDS = (HERE.parents[1] / "README.md", *(ASSETS / name / "README.md" for name in ("codec", "teacher", "student")))
Sound = NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """One sentence of one speaker at one stage."""

    stage: str
    speaker: str
    text: str
    heard: str
    voiced: float
    vector: Sound


def voiced_share(sound: Sound) -> float:
    """Share of the loud frames (within 25 dB of the loudest) that have a pitch."""
    hop = SAMPLE_RATE // 100
    frames = sound[: len(sound) // hop * hop].reshape(-1, hop)
    if not len(frames):
        return 0.0
    loudness = 20 * np.log10(np.sqrt((frames**2).mean(1)) + 1e-6)
    loud = loudness > loudness.max() - 25
    return float((pitch_of(sound)[: len(loud)] > 0)[loud].mean())


class Bench:
    """The voice and the instruments, loaded once a process."""

    def __init__(self, assets: Path | None) -> None:
        self.system, self.untrained = MiniSystem.load(assets), MiniSystem.load(assets, student=False)
        self.recognize, self.encode, self.log_mel = FasterWhisper(threads=1), Resemblyzer(), LogMel()
        self.kokoro, self.kokoro_voices = kokoro.Kokoro(), {speaker.name: speaker.voice for speaker in SPEAKERS}

    @torch.inference_mode()
    def sounds(self, text: str, name: str, seed: int) -> dict[str, Sound]:
        """Every stage of the voice for one sentence."""
        sound = soxr.resample(self.kokoro.speak(text, self.kokoro_voices[name]), kokoro.SAMPLE_RATE, SAMPLE_RATE)
        source = prepare(sound).astype(np.float32) / 32768
        mel = self.log_mel(torch.from_numpy(source)[None])
        round_trip = self.system.vocoder(acoustics_of(mel, torch.from_numpy(pitch_of(source))[None]))[0].numpy()
        voice = self.system.voices[name]
        codes = self.system.codec.encode(mel, voice.vector)[0].numpy()
        return {
            "source": source,
            "mel": round_trip,
            "codec": self.system.decode(codes, voice),
            "teacher": self.system.synthesize(text, name, "full", seed=seed).waveform,
            f"untrained, W = {self.system.window}": self.untrained.synthesize(text, name, "window", seed=seed).waveform,
            f"student, W = {self.system.window}": self.system.synthesize(text, name, "window", seed=seed).waveform,
        }

    def measure(self, text: str, seed: int) -> list[Measured]:
        """One sentence, all speakers, all stages."""
        rows = []
        for name in self.system.speakers:
            for stage, sound in self.sounds(text, name, seed).items():
                heard = self.recognize(sound, SAMPLE_RATE)
                rows.append(Measured(stage, name, text, heard, voiced_share(sound), self.identity(sound)))
        return rows

    def identity(self, sound: Sound) -> Sound:
        """Who speaks; of less than a tenth of a second, nobody."""
        return self.encode(sound, SAMPLE_RATE) if len(sound) > SAMPLE_RATE // 10 else np.zeros(256, np.float32)

    def failures(self, text: str, number: int) -> list[dict[str, Any]]:
        """Judge a sentence as spoken by the teacher and by the student."""
        found = {attention: self.failure(text, number, attention) for attention in ("full", "window")}
        return [{"attention": attention, **failure} for attention, failure in found.items() if failure]

    def failure(self, text: str, number: int, attention: Attention) -> dict[str, Any] | None:
        """Say what went wrong with a sentence, if anything, by the rules of :mod:`wandlib.evaluation.failures`."""
        speaker = self.system.speakers[number % len(self.system.speakers)]
        speech = self.system.synthesize(text, speaker, attention, seed=number)
        symbols = self.system.count_symbols(text)
        kinds = failures(speech, self.system.codes_per_second, symbols)
        if not kinds:
            return None
        parts = list(zip(symbols, speech.trace.parts, strict=True))
        return {"kind": ", ".join(kinds), "text": text, "speaker": speaker, "symbols and codes": parts}


@functools.cache
def bench(assets: Path | None) -> Bench:
    """Make the process's own bench, on one thread: the processes share the cores."""
    torch.set_num_threads(1)
    return Bench(assets)


def _measure(job: tuple[Path | None, str, int]) -> list[Measured]:
    return bench(job[0]).measure(*job[1:])


def _failures(job: tuple[Path | None, str, int]) -> list[dict[str, Any]]:
    return bench(job[0]).failures(*job[1:])


def interval(rows: list[Measured]) -> Interval:
    """Compute the CER of these utterances, with its 95 % interval over sentences."""
    counts = [count_errors(row.text, row.heard, plain_english) for row in rows]
    return bootstrap(
        [count.character_errors for count in counts],
        [count.characters for count in counts],
        [row.text for row in rows],
    )


def summarise(rows: list[Measured], references: dict[str, Sound]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make the tables by stage and by speaker; ``references`` has the speaker vector of each built-in reference."""
    names = list(references)
    stages = list(dict.fromkeys(row.stage for row in rows))
    of = {
        (stage, name): [r for r in rows if r.stage == stage and r.speaker == name] for stage in stages for name in names
    }

    def rates(chosen: list[Measured]) -> Any:
        return error_rates([row.text for row in chosen], [row.heard for row in chosen], plain_english)

    def voicing(stage: str, name: str) -> float:
        mine, source = (np.mean([row.voiced for row in of[s, name]]) for s in (stage, "source"))
        return float(mine / source)

    def likeness(stage: str, name: str, other: str) -> float:
        return float(np.mean([similarity(row.vector, references[other]) for row in of[stage, name]]))

    by_stage = []
    for stage in stages:
        chosen = [row for row in rows if row.stage == stage]
        measured = interval(chosen)
        margins = [
            likeness(stage, name, name) - max(likeness(stage, name, other) for other in names if other != name)
            for name in names
        ]
        by_stage.append(
            {
                "stage": stage,
                "WER": rates(chosen).wer,
                "CER": rates(chosen).cer,
                "CER, 95 %": f"{measured.low:.3f} to {measured.high:.3f}",
                "voiced, worst": min(voicing(stage, name) for name in names),
                "similarity": float(np.mean([likeness(stage, name, name) for name in names])),
                "margin, worst": min(margins),
            }
        )
    by_speaker = [
        {"speaker": name, **{f"CER {stage}": rates(of[stage, name]).cer for stage in stages}}
        | {"voiced": voicing("teacher", name), "similarity": likeness("teacher", name, name)}
        | {"closest other": max(likeness("teacher", name, other) for other in names if other != name)}
        for name in names
    ]
    return by_stage, by_speaker


def references(system: MiniSystem) -> dict[str, Sound]:
    """Compute the speaker vector of each built-in reference from the sound of its 3 s of codes."""
    encode = Resemblyzer()
    return {name: encode(sound, SAMPLE_RATE) for name, sound in reference_sounds(system, system.speakers).items()}


def speed(assets: Path | None) -> dict[str, float]:
    """Real-time factor of the whole path, and the start of a new process (its files in the system's cache); medians."""
    torch.set_num_threads(os.cpu_count() or 1)
    system = MiniSystem.load(assets)
    factors = {}
    for attention in ("full", "window"):
        spoken = [system.synthesize(text, attention=attention, seed=i) for i, text in enumerate(HARVARD[:6])]  # type: ignore[arg-type]
        factors[f"real-time factor, {attention}"] = float(np.median([speech.real_time_factor for speech in spoken[1:]]))
        factors[f"ms a step, {attention}"] = float(np.median([s.trace.median_milliseconds for s in spoken[1:]]))
    program = (
        "import time; start = time.perf_counter(); import wandlib; from pathlib import Path; "
        f"tts = wandlib.load_system('mini', {str(assets)!r} if {assets is not None} else None); "
        "loaded = time.perf_counter(); tts.synthesize('The birch canoe slid on the smooth planks.'); "
        "print(loaded - start, time.perf_counter() - start)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True) for _ in range(3)
    ]
    times = np.median([[float(word) for word in run.stdout.split()] for run in runs], axis=0)
    return factors | {"import and load, s": float(times[0]), "first speech from a cold start, s": float(times[1])}


def report(result: dict[str, Any]) -> str:
    """Format the tables as markdown."""
    tried = result["sentences of every kind"]
    failures = {
        name: [row for row in result["failures"] if row["attention"] == attention]
        for name, attention in (("teacher", "full"), ("student", "window"))
    }
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in failures.items())
    which = "; ".join(f"{k}: {row['kind']}, {row['text'][:50]!r}" for k, rows in failures.items() for row in rows)
    lines = [
        markdown_table(result["stages"]),
        "",
        "*voiced*: share of loud frames with a pitch, relative to the source, for the worst speaker. *similarity*: to",
        "the speaker's own reference (resemblyzer); *margin*: over the closest other speaker, for the worst speaker.",
        "",
        markdown_table(result["speakers"]),
        "",
        f"Failures (no end, runaway, early stop, repetition) of {tried} texts of 1 to 40 words, of all kinds that",
        f"people type (many of their words stand in sentences that training used): {counts}. Which: {which or 'none'}.",
        "",
        markdown_table([{"speed": name, result["machine"]: value} for name, value in result["speed"].items()]),
    ]
    return "\n".join(lines)


def main(
    assets: Annotated[Path | None, typer.Option(help="Weights to evaluate; default: the shipped ones.")] = None,
    sentences: Annotated[int, typer.Option(help="Harvard sentences per speaker.")] = len(HARVARD),
    robust: Annotated[int, typer.Option(help="Sentences of every kind.")] = 200,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    write: Annotated[
        bool, typer.Option(help="Put the numbers into results.json, the README and the model cards.")
    ] = False,
) -> None:
    """Print the stage table of the embedded voice, its failures and its speed."""
    system = MiniSystem.load(assets)
    if write:
        for card in CARDS:  # better before than after ten minutes
            put_measured(card.read_text(encoding="utf-8"), "")
    with get_context("spawn").Pool(workers) as pool:
        jobs = [(assets, text, number) for number, text in enumerate(HARVARD[:sentences])]
        rows = [row for part in tqdm(pool.imap(_measure, jobs), total=len(jobs), desc="sentences") for row in part]
        odd = [(assets, text, number) for number, text in enumerate(robustness_sentences(robust))]
        found = [row for part in tqdm(pool.imap(_failures, odd), total=len(odd), desc="failures") for row in part]
    by_stage, by_speaker = summarise(rows, references(system))
    result = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
        "date": time.strftime("%Y-%m-%d"),
        "Harvard sentences": sentences,
        "sentences of every kind": robust,
        "stages": by_stage,
        "speakers": by_speaker,
        "failures": found,
        "speed": speed(assets),
    }
    print(report(result))
    if write:
        RESULTS.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for card in CARDS:
            card.write_text(put_measured(card.read_text(encoding="utf-8"), report(result)), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
