"""The recipe as one command: ``python -m recipes.mini`` runs every stage, and goes on where it stopped.

Checkpoints and data live under ``runs/mini`` (about 3 GB); the result is written to ``wandlib/assets/mini``. Speech
that lies elsewhere is named by ``$WANDLIB_SPEECH``. After it: ``python -m recipes.mini.evaluate --write --people
FOLDER`` with recordings of people, ``python -m recipes.mini.long_form --write``, ``make ablation``.

Hours on two cores, for 20 hours of speech, 3 of them with sound, and for 40::

    speech      0.7    0.7   .47 s for a second of speech and process, measured with nothing beside it; .66 without VNNI
    hearing     0.1    0.1   .07 s for a second of speech and process, measured so
    corpus, analysis, pairs, alignment, codes
                0.5    1.0
    shortcut    0.2    0.2   trains for a time, as aligner, vocoder, codec and tuning do
    spectra     0.6    1.3   .07 s for a second of speech and process, measured with nothing beside it, without VNNI
    aligner     0.1    0.1
    vocoder     0.2    0.2
    codec       1.3    1.3
    tuning      0.2    0.2
    teacher     2.1    4.1   four passes, 3.9 million tokens for 20 hours and pass; 1,100 tokens a second and core
    guidance    0.2    0.2   300 steps, each with two forward passes of the teacher more
    choice      0.3    0.3   the teacher's errors on held-out sentences are printed: look before the student is trained
    student     0.6    0.6   320 steps, 3.9 million tokens; the teacher's forward pass comes on top
    all         7.1   10.3
    evaluate    1.5, long_form 0.7, ablation 6

Of evaluate, long_form and ablation they are estimated. The machine had two x86-64 cores without bfloat16, on which a
product of two 1024 x 1024 matrices took 29 ms on one core.

16 kHz, though the source has 24: a vocoder for 24 kHz would fit (its part of the real-time factor is below .02, and the
codes stay 25 a second), but nothing could show that it sounds better. All instruments hear 16 kHz, above 8 kHz lies
1.3 % of the source's energy (in 95 % of the utterances below 4.2 %), and the same codes would have to carry it too.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from recipes.mini import (
    align,
    analysis,
    corpus,
    encode,
    export,
    guidance,
    hearing,
    loop,
    shipped,
    spectra,
    speech,
    spoken,
    train_codec,
    train_student,
    train_teacher,
    train_vocoder,
    tune,
)
from wandlib.systems.mini.system import ASSETS

STAGES = (
    *("speech", "hearing", "corpus", "analysis", "pairs", "shortcut", "spectra"),
    *("aligner", "alignment", "vocoder", "codec", "codes"),
    *("tuning", "teacher", "guidance", "choice", "student", "export"),
)
OTHERS = ("shipped",)
"""Stages that run only when asked for."""
MADE_OF = {"aligner": "corpus", "vocoder": "corpus", "codec": "corpus", "tuning": "codec", "teacher": "codec"} | {
    "guidance": "teacher",
    "choice": "guidance",
    "student": "guidance",
}
"""What a stage begins with: if that is trained on, or anew, or if speech was added, the stage has to be made anew."""
RESULTS = {"tuning": "tuned_vocoder.pt", "choice": "choices.json", "student": "student"} | {
    name: f"{name}.pt" for name in ("aligner", "vocoder", "codec", "teacher", "guidance")
}
SHARED = ("shortcut", "aligner", "codec", "tuning", "teacher", "guidance", "student")
"""Stages that several processes train together."""
MINUTES = {"shortcut": 12.0, "aligner": 8.0, "vocoder": 12.0, "codec": 75.0, "tuning": 10.0}
"""Time of the stages that train for a time, each process with a core to itself; shorter ones lay the same schedule
over less time. The teacher and the student train for a number of passes over the speech."""


def stage(name: str, folder: Path, hours: float, sound: float, speed: float, target: Path, processes: int) -> None:
    """Run one stage; a finished one returns at once."""
    data, seconds = folder / "corpus", 60 * MINUTES.get(name, 0.0) / speed
    sounds = Path(os.environ.get("WANDLIB_SPEECH", folder / "speech"))
    many = 1_000_000  # the clock ends training, not the number of steps
    stages: dict[str, Callable[[], object]] = {
        "speech": lambda: speech.build(sounds, min(hours, sound), workers=processes),
        "hearing": lambda: hearing.run(sounds, processes),
        "corpus": lambda: corpus.build(sounds, data, processes),
        "analysis": lambda: (analysis.build(data, processes), align.phones(data)),
        "pairs": lambda: spectra.pairs(sounds, folder, processes),
        "shortcut": lambda: spectra.run(folder, many, seconds),
        "spectra": lambda: (spectra.build(sounds, folder, data, hours, processes), align.phones(data)),
        "aligner": lambda: align.run(folder, data, many, seconds),
        "alignment": lambda: align.align_corpus(folder, data),
        "vocoder": lambda: train_vocoder.run(folder, data, many, seconds),
        "codec": lambda: train_codec.run(folder, data, many, seconds),
        "codes": lambda: (encode.run(folder, data, processes), spoken.build(folder, data)),
        "tuning": lambda: train_vocoder.tune(folder, data, many, seconds),
        "teacher": lambda: train_teacher.run(folder, data, speed),
        "guidance": lambda: guidance.run(folder, data, speed),
        "student": lambda: train_student.run(folder, data, speed),
        "choice": lambda: tune.run(folder, data, processes),
        "export": lambda: export.run(folder, data, target),
        "shipped": lambda: shipped.run(folder),
    }
    stages[name]()


def check_origin(folder: Path, name: str) -> None:
    """Note in ``folder/made_of.json`` which weights, or how large a corpus, a stage begins with.

    Raises
    ------
    ValueError
        If there is a result that was begun with others.
    """
    path, source = folder / "made_of.json", MADE_OF.get(name)
    if source is None:
        return
    notes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if source == "guidance" and not (folder / "guidance.pt").exists():
        source = "teacher"  # as it is after the stage "shipped"
    if source == "corpus":
        now = f"{len(corpus.read_shards(folder / 'corpus'))} utterances"
    else:
        state = torch.load(folder / f"{source}.pt", weights_only=True)
        now = f"{state['step']} steps (sum {loop.sum_of(state.get('average', {}))[:8]})"
    result = folder / RESULTS[name]
    if result.exists() and notes.get(name, now) != now:
        raise ValueError(
            f"{result} was begun with {source} of {notes[name]}, which has {now} now: remove it, and it is made anew"
        )
    path.write_text(json.dumps(notes | {name: now}), encoding="utf-8")


def main(
    stages: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Some of: {', '.join(STAGES)}. Default: all, in order. And: shipped, which starts from the package's "
            "weights instead of training codec, vocoder and teacher."
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where data and checkpoints live.")] = Path("runs/mini"),
    target: Annotated[
        Path, typer.Option(help="Where the finished weights, cards and NOTICE go; default: over the voice that ships.")
    ] = ASSETS,
    hours: Annotated[float, typer.Option(help="Hours of speech to learn from.")] = 20.0,
    sound: Annotated[float, typer.Option(help="Hours of it that are spoken; of the rest there are spectra.")] = 3.0,
    speed: Annotated[
        float,
        typer.Option(
            help="Divide every training budget by this, to try the recipe out; name --folder and --target with it, "
            "else it replaces the voice that ships, its cards, NOTICE and recipes/mini/spoken.npz."
        ),
    ] = 1.0,
    processes: Annotated[
        int, typer.Option(help="Processes that make speech and train codec and teacher, one thread each.")
    ] = 2,
) -> None:
    """Make the embedded voice from nothing: speech by Kokoro, a codec, a vocoder, an aligner, teacher and student.

    It takes a working day on two cores; the head of this module says how much of it each stage. Stop it at any time:
    the next run goes on.
    """
    chosen = stages or list(STAGES)
    unknown = sorted(set(chosen) - {*STAGES, *OTHERS})
    if unknown:
        raise typer.BadParameter(f"no stage {', '.join(unknown)}; there are {', '.join(STAGES + OTHERS)}")
    rank = os.environ.get("RANK")  # of a process that a launcher below has started
    torch.set_num_threads(1 if rank else max(1, os.cpu_count() or 1))
    for name in chosen:
        started = time.monotonic()
        if rank is None:
            check_origin(folder, name)
        if rank is None and name in SHARED and processes > 1:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            command += ["-m", "recipes.mini", name, "--folder", str(folder), "--speed", str(speed)]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        else:
            # The first process, not the launcher, keeps others out: it may live on where the launcher was killed.
            with speech.locked(folder) if rank in (None, "0") else contextlib.nullcontext():
                stage(name, folder, hours, sound, speed, target, processes)
        if rank in (None, "0"):
            typer.echo(f"{name}: done in {(time.monotonic() - started) / 60:.1f} min")


if __name__ == "__main__":
    typer.run(main)
