"""The stage table of the model card: source, mel round trip, codec, teacher; ``python -m recipes.mini.evaluate``.

Thirty IEEE Harvard sentences that training never saw, spoken by every built-in speaker. Each stage adds one loss:

    source     flite itself
    mel        its mel spectrum and pitch through the vocoder
    codec      its codes through decoder and vocoder
    teacher    the language model's own codes, at the default sampling
    window     the same weights under the window, untrained

WER and CER by PocketSphinx, speaker similarity by resemblyzer, voicing by Praat.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from recipes.mini.analysis import pitch_of
from recipes.mini.corpus import SAMPLE_RATE, SPEAKERS, prepare
from recipes.mini.sentences import robustness_sentences
from recipes.mini.train_vocoder import acoustics_of
from wandlib.metrics import PocketSphinx, Resemblyzer, error_rates, similarity
from wandlib.systems.mini.features import LogMel
from wandlib.systems.mini.system import MiniSystem

HARVARD = [line for line in (Path(__file__).parent / "harvard.txt").read_text(encoding="utf-8").splitlines() if line]
Sound = NDArray[np.float32]


def bootstrap(per_sentence: list[tuple[str, str]], draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the CER over sentences drawn with replacement."""
    rng = np.random.default_rng(seed)
    import jiwer

    counts = []
    for truth, heard in per_sentence:
        out = jiwer.process_characters(truth, heard)
        counts.append((out.substitutions + out.deletions + out.insertions, len(truth)))
    table = np.array(counts)
    rates = [table[rng.integers(0, len(table), len(table))].sum(0) for _ in range(draws)]
    low, high = np.percentile([errors / length for errors, length in rates], [2.5, 97.5])
    return float(low), float(high)


def voiced_share(sound: Sound) -> float:
    """Share of the loud frames (within 25 dB of the loudest) that have a pitch."""
    hop = SAMPLE_RATE // 100
    frames = sound[: len(sound) // hop * hop].reshape(-1, hop)
    loudness = 20 * np.log10(np.sqrt((frames**2).mean(1)) + 1e-6)
    loud = loudness > loudness.max() - 25
    voiced = pitch_of(sound)[: len(loud)] > 0
    return float(voiced[loud].mean())


class Stages:
    """Every stage of the voice for one sentence and speaker."""

    def __init__(self, system: MiniSystem) -> None:
        self.system = system
        self.log_mel = LogMel()
        self.speakers = {speaker.name: speaker for speaker in SPEAKERS}

    @torch.inference_mode()
    def recorded(self, text: str, name: str) -> dict[str, Sound]:
        """Source, mel round trip and codec round trip."""
        source = prepare(self.speakers[name].speak(text)).astype(np.float32) / 32768
        mel = self.log_mel(torch.from_numpy(source)[None])
        round_trip = self.system.vocoder(acoustics_of(mel, torch.from_numpy(pitch_of(source))[None]))[0].numpy()
        voice = self.system.voices[name]
        codes = self.system.codec.encode(mel, voice.vector)[0].numpy()
        return {"source": source, "mel": round_trip, "codec": self.system.decode(codes, voice)}


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as a markdown table."""
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for row in rows:
        lines.append(" | ".join(f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c]) for c in columns))
    return "\n".join(f"| {line} |" for line in lines)


def robustness(system: MiniSystem, sentences: list[str]) -> dict[str, Any]:
    """Failures and speed over sentences of every kind, speakers in turn."""
    failures: list[dict[str, Any]] = []
    seconds = computed = 0.0
    for index, text in enumerate(tqdm(sentences, desc="robustness")):
        speech = system.synthesize(text, reference=system.speakers[index % len(system.speakers)], seed=index)
        seconds, computed = seconds + speech.seconds, computed + speech.seconds_to_compute
        symbols = sum(len(part) for part in system._parts(text))
        kind = None
        if speech.trace.finish == "limit":
            kind = "no end"
        elif len(speech.codes) > 4.5 * symbols + 25:
            kind = "runaway"
        elif len(speech.codes) < 0.8 * symbols:
            kind = "early stop"
        if kind is not None:
            failures.append({"text": text, "kind": kind, "codes": len(speech.codes), "symbols": symbols})
    return {
        "sentences": len(sentences),
        "failures": failures,
        "failure_rate": len(failures) / len(sentences),
        "seconds_of_speech": seconds,
        "real_time_factor": computed / seconds,
    }


def main(
    assets: Annotated[Path | None, typer.Option(help="Weights to evaluate; default: the shipped ones.")] = None,
    sentences: Annotated[int, typer.Option(help="Harvard sentences per speaker.")] = len(HARVARD),
    speakers: Annotated[str, typer.Option(help="Comma-separated names; default: all.")] = "",
    attention: Annotated[
        str, typer.Option(help="Language model stages, comma-separated: full, window.")
    ] = "full,window",
    robust: Annotated[int, typer.Option(help="Sentences of the robustness test; 0 leaves it out.")] = 200,
    output: Annotated[Path | None, typer.Option(help="Write the numbers as JSON, too.")] = None,
) -> None:
    """Print the stage table of the embedded voice."""
    system = MiniSystem.load(assets)
    stages, recognise, encode = Stages(system), PocketSphinx(), Resemblyzer()
    names = speakers.split(",") if speakers else system.speakers
    heard: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    voiced: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    vectors: dict[str, dict[str, list[Sound]]] = defaultdict(lambda: defaultdict(list))
    started = time.monotonic()
    for text in tqdm(HARVARD[:sentences], desc="sentences"):
        for index, name in enumerate(names):
            sounds = stages.recorded(text, name)
            for kind in attention.split(","):
                made = system.synthesize(text, reference=name, attention=kind, seed=index)  # type: ignore[arg-type]
                sounds["teacher" if kind == "full" else f"window {system.window}"] = made.waveform
            for stage, sound in sounds.items():
                heard[stage].append((text, recognise(sound, SAMPLE_RATE), name))
                voiced[stage][name].append(voiced_share(sound))
                vectors[stage][name].append(encode(sound, SAMPLE_RATE))
    centres = {name: np.mean(vectors["source"][name], axis=0) for name in names}
    rows = []
    for stage, lines in heard.items():
        rates = error_rates([line[0] for line in lines], [line[1] for line in lines])
        from wandlib.metrics import normalise

        low, high = bootstrap([(normalise(line[0]), normalise(line[1])) for line in lines])
        shares = [np.mean(voiced[stage][n]) / np.mean(voiced["source"][n]) for n in names]
        own = [np.mean([similarity(v, centres[n]) for v in vectors[stage][n]]) for n in names]
        others = [
            max(np.mean([similarity(v, centres[other]) for v in vectors[stage][n]]) for other in names if other != n)
            for n in names
        ]
        rows.append(
            {
                "stage": stage,
                "WER": rates.wer,
                "CER": rates.cer,
                "CER 95 %": f"{low:.3f}-{high:.3f}",
                "voiced / source, worst speaker": float(min(shares)),
                "own similarity": float(np.mean(own)),
                "own - closest other, worst speaker": float(min(o - x for o, x in zip(own, others, strict=True))),
            }
        )
    print(table(rows, list(rows[0])))
    per_speaker = []
    for name in names:
        row: dict[str, Any] = {"speaker": name}
        for stage, lines in heard.items():
            mine = [line for line in lines if line[2] == name]
            row[f"CER {stage}"] = error_rates([line[0] for line in mine], [line[1] for line in mine]).cer
        row["voiced / source"] = float(np.mean(voiced["teacher"][name]) / np.mean(voiced["source"][name]))
        per_speaker.append(row)
    print("\n" + table(per_speaker, list(per_speaker[0])))
    result: dict[str, Any] = {"stages": rows, "speakers": per_speaker, "sentences": sentences}
    if robust:
        result["robustness"] = robustness(system, robustness_sentences(robust))
        print(
            f"\nfailures: {len(result['robustness']['failures'])} of {robust}; "
            f"real-time factor {result['robustness']['real_time_factor']:.3f}"
        )
        for failure in result["robustness"]["failures"]:
            print("  ", failure)
    print(f"{time.monotonic() - started:.0f} s")
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
