"""The numbers of README and model cards: ``python -m recipes.mini.evaluate``, about an hour and a half on two cores.

Thirty IEEE Harvard sentences that training never saw, by every speaker of a voice folder, at every stage of
:mod:`recipes.mini.stages`, greedy and sampled: WER and CER by Whisper tiny.en, DNSMOS, speaker similarity by
resemblyzer, each with an interval, and paired with the teacher's. Then two hundred odd texts for failures, recordings
of people as references, and the speed of the whole path. What was measured is kept under ``--folder`` by the sum of
the weights, so that a run that was stopped goes on. ``--write`` puts the tables into the README and the model cards.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import torch
import typer
from tqdm import tqdm

from recipes.mini import listening, tables
from recipes.mini.downloads import sha256
from recipes.mini.files import mark_of, slug_of, write_json
from recipes.mini.pool import Workers
from recipes.mini.sentences import HARVARD, robustness_sentences
from recipes.mini.stages import SOURCES, Stage, stages_of, voices_of
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.report import Report, put_measured
from wandlib.profiling.measure import machine
from wandlib.systems.base import Attention
from wandlib.systems.mini.system import ASSETS, MiniSystem
from wandlib.systems.speech import Speech

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
CARDS = (HERE.parents[1] / "README.md", *(ASSETS / name / "README.md" for name in ("codec", "teacher", "student")))
UNNAMED = "the voice folder does not say which voices of Kokoro it learned from"
ODD = 200
"""Odd texts of a whole evaluation."""
SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats()} | {".aif", ".mp3", ".oga", ".opus"}
SUFFIXES -= {".raw"}
"""Of files that soundfile reads; a raw one does not tell its rate."""
AT_ONCE = 5
"""Sentences of a job."""
Job = tuple[str, tuple[Any, ...], Path]
"""What is measured, its arguments, and where the answer is kept."""


def digest_of(assets: Path | None) -> str:
    """Sum of all that a voice consists of."""
    found = hashlib.sha256()
    for path in sorted((assets or ASSETS).rglob("*")):
        if path.suffix in {".safetensors", ".json"}:
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:12]


def kept_in(folder: Path, assets: Path | None) -> Path:
    """Where measurements of a voice by the instruments that are here are kept."""
    return folder / f"{digest_of(assets)}-{listening.instruments()}"


def work(job: Job) -> Any:
    """Do one job, or read what it found before."""
    kind, arguments, path = job
    if not path.exists():
        if kind == "stage":
            report = listening.measure(*arguments)
            if not report.utterances:  # what speaks there is not installed; another time it may be
                return report
            made: Any = json.loads(report.to_json())
        elif kind == "odd":
            made = listening.judge(*arguments)
        else:
            made = listening.imitate(*arguments)
        write_json(path, made)
    if kind == "stage":
        return Report.from_json(path)
    return json.loads(path.read_text(encoding="utf-8"))


def jobs_of(
    assets: Path | None, stages: list[Stage], sentences: list[str], odd: list[str], people: list[Path], folder: Path
) -> list[Job]:
    """Cut the evaluation into jobs; each is named by what it depends on."""
    found: list[Job] = []

    def add(kind: str, name: str, *arguments: Any) -> None:
        found.append((kind, arguments, folder / f"{slug_of(name)}-{mark_of(*arguments[1:])}.json"))

    for stage in stages:
        for start in range(0, len(sentences), AT_ONCE):
            add("stage", stage.name, assets, stage, sentences[start : start + AT_ONCE])
    texts = list(enumerate(odd))
    for start in range(0, len(texts), 4 * AT_ONCE):
        add("odd", "odd", assets, texts[start : start + 4 * AT_ONCE])
    for recording in people:
        add("person", f"{recording.stem}-{sha256(recording)[:8]}", assets, recording)
    return found


def recordings_in(people: Path) -> list[Path]:
    """Return the files of a folder that soundfile reads, in order.

    Raises
    ------
    typer.BadParameter
        Where there is none.
    """
    found = sorted(path for path in people.glob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise typer.BadParameter(f"no recording in {people}: --people is a folder of .wav, .flac, .mp3 or .ogg files")
    return found


def joined(reports: list[Report]) -> Report:
    """Put the parts of one evaluation together."""
    found = Report({}, [], {})
    for report in reports:
        found.instruments |= report.instruments
        found.unavailable |= report.unavailable
        found.utterances += report.utterances
    return found


PROGRAM = """
import time; start = time.perf_counter()
import wandlib; from pathlib import Path
tts = wandlib.load_system("mini", {folder})
loaded = time.perf_counter() - start
next(tts.stream("The birch canoe slid on the smooth planks.", attention="window"))
first = time.perf_counter() - start
for text in ("Glue the sheet to the dark blue background.", "The box was thrown beside the parked truck."):
    stream = tts.stream(text, attention="window"); next(stream); warm = stream.trace.first_sound_milliseconds / 1000
print(loaded, first, warm)
"""


def speed(assets: Path | None) -> dict[str, dict[str, float]]:
    """By this machine's name: real-time factor of the whole path, and the start of a new process; medians.

    The process is started three times, so that its files are in the system's cache.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    system = MiniSystem.load(assets)
    spoken: dict[Attention, list[Speech]] = {"full": [], "window": []}
    for seed, text in enumerate(HARVARD[:6]):  # in turn, so that other load of the machine hits both
        for attention, of in spoken.items():
            of.append(system.synthesize(text, attention=attention, seed=seed))
    factors = {}
    for attention, (_, *of) in spoken.items():  # the first one warms up
        factors[f"real-time factor, {attention}"] = float(np.median([speech.real_time_factor for speech in of]))
        factors[f"ms a step, {attention}"] = float(np.median([speech.trace.median_milliseconds for speech in of]))
    folder = repr(None if assets is None else str(assets))
    command = [sys.executable, "-c", PROGRAM.format(folder=folder)]
    threads = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    runs = [subprocess.run(command, capture_output=True, check=True, text=True, env=threads) for _ in range(3)]
    times = np.median([[float(word) for word in run.stdout.split()] for run in runs], axis=0)
    names = ("import and load, s", "first sound from a cold start, s", "first sound warm, s")
    return {machine(): factors | dict(zip(names, map(float, times), strict=True))}


def main(
    assets: Annotated[Path | None, typer.Option(help="Voice folder to evaluate; default: the shipped one.")] = None,
    sentences: Annotated[int, typer.Option(help="Harvard sentences per speaker.")] = len(HARVARD),
    odd: Annotated[int, typer.Option(help="Odd texts; 0: none.")] = ODD,
    people: Annotated[
        Path | None,
        typer.Option(help="Folder of recordings of people, as references; default: as in results.json, of this voice."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    folder: Annotated[Path, typer.Option(help="Where measurements are kept.")] = Path("runs/mini/evaluation"),
    only_speed: Annotated[
        bool, typer.Option(help="Measure the speed on this machine, a minute; the rest is as in results.json.")
    ] = False,
    write: Annotated[
        bool, typer.Option(help="Put the numbers into results.json, the README and the model cards.")
    ] = False,
) -> None:
    """Print the tables of a voice: its stages, its speakers, its failures and its speed."""
    if write:
        if assets not in (None, ASSETS):
            raise typer.BadParameter(f"README and cards are of the voice in {ASSETS}, which ships: leave out --assets")
        if not only_speed and (sentences < len(HARVARD) or odd < ODD):
            raise typer.BadParameter(
                f"--write is for a whole evaluation, {len(HARVARD)} sentences and {ODD} odd texts, not {sentences} and "
                f"{odd}: leave out --write, or --sentences and --odd"
            )
        for card in CARDS:  # better before than after an hour
            put_measured(card.read_text(encoding="utf-8"), "")
    known = json.loads(RESULTS.read_text(encoding="utf-8"))
    before = known if known["voice"] == digest_of(assets) else {}
    speeds = before.get("speed", {})
    if only_speed:
        if not speeds:
            raise typer.BadParameter(f"{RESULTS.name} is of another voice, {known['voice']}: leave out --only-speed")
        return show(known | {"speed": speeds | speed(assets)}, write=write)
    kept = kept_in(folder, assets)
    kept.mkdir(parents=True, exist_ok=True)
    recordings = recordings_in(people) if people else []
    unavailable: dict[str, str] = {}
    if not voices_of(assets):
        unavailable[", ".join(SOURCES)] = UNNAMED
    if recordings and isinstance(listening.identity(), Unavailable):
        unavailable["people as references"], recordings = listening.identity().reason, []  # type: ignore[union-attr]
    texts = robustness_sentences(odd) if odd else []
    jobs = jobs_of(assets, stages_of(assets), HARVARD[:sentences], texts, recordings, kept)
    os.environ["OMP_NUM_THREADS"] = "1"
    with Workers(workers) as pool:
        answers = list(tqdm(pool.imap(work, jobs), total=len(jobs), desc="jobs"))
    of = {
        kind: [a for (k, _, _), a in zip(jobs, answers, strict=True) if k == kind]
        for kind in ("stage", "odd", "person")
    }
    report = joined(of["stage"])
    report.unavailable |= unavailable
    result = tables.summarize(report) | {
        "date": time.strftime("%Y-%m-%d"),
        "voice": digest_of(assets),
        "sentences": sentences,
        "odd texts": odd,
        "failures": [row for part in of["odd"] for row in part],
        "people": of["person"] if people else before.get("people", []),
        "speed": speeds | speed(assets),
    }
    show(result, write=write)


def show(result: dict[str, Any], *, write: bool) -> None:
    """Print the tables; ``write``: put them into the README and the model cards as well."""
    print(tables.document(result))
    if write:
        RESULTS.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for card in CARDS:
            card.write_text(put_measured(card.read_text(encoding="utf-8"), tables.document(result)), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
