"""The recipe as one command: ``python -m recipes.mini`` runs every stage, and goes on where it stopped.

Checkpoints and data live under ``runs/mini`` (about 6 GB); the result is written to ``wandlib/assets/mini``. Speech
that lies elsewhere is named by ``$WANDLIB_SPEECH``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
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
    hearing,
    shipped,
    speech,
    train_codec,
    train_student,
    train_teacher,
    train_vocoder,
)
from wandlib.systems.mini.system import ASSETS

STAGES = (
    *("speech", "hearing", "corpus", "analysis", "aligner", "alignment", "vocoder", "codec", "codes"),
    *("tuning", "teacher", "student", "export"),
)
OTHERS = ("shipped",)
"""Stages that run only when asked for."""
SHARED = ("aligner", "codec", "tuning", "teacher", "student")
"""Stages that several processes train together."""
MINUTES = {"aligner": 7.0, "vocoder": 11.0, "codec": 55.0, "tuning": 8.0, "teacher": 85.0}
"""Wall time of each training stage on two cores; shorter budgets lay the same schedule over less time."""


def stage(name: str, folder: Path, hours: float, speed: float, target: Path, processes: int) -> None:
    """Run one stage; a finished one returns at once."""
    data, seconds = folder / "corpus", 60 * MINUTES.get(name, 0.0) / speed
    spoken = Path(os.environ.get("WANDLIB_SPEECH", folder / "speech"))
    many = 1_000_000  # the clock ends training, not the number of steps
    if name == "speech":
        speech.build(spoken, hours, workers=processes)
    elif name == "hearing":
        hearing.run(spoken)
    elif name == "corpus":
        corpus.build(spoken, data)
    elif name == "analysis":
        analysis.build(data)
    elif name == "aligner":
        align.run(folder, data, many, seconds)
    elif name == "alignment":
        align.align_corpus(folder, data)
    elif name == "vocoder":
        train_vocoder.run(folder, data, many, seconds)
    elif name == "codec":
        train_codec.run(folder, data, many, seconds)
    elif name == "codes":
        encode.run(folder, data)
    elif name == "tuning":
        train_vocoder.tune(folder, data, many, seconds)
    elif name == "shipped":
        shipped.run(folder)
    elif name == "teacher":
        train_teacher.run(folder, data, many, seconds)
    elif name == "student":
        train_student.run(folder, data, speed)
    elif name == "export":
        export.run(folder, data, target)


def main(
    stages: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Some of: {', '.join(STAGES)}. Default: all, in order. And: shipped, which starts from the package's "
            "weights instead of training codec, vocoder and teacher."
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where data and checkpoints live.")] = Path("runs/mini"),
    target: Annotated[Path, typer.Option(help="Where the finished weights go.")] = ASSETS,
    hours: Annotated[float, typer.Option(help="Hours of speech to make.")] = 20.0,
    speed: Annotated[float, typer.Option(help="Divide every training budget by this, to try the recipe out.")] = 1.0,
    processes: Annotated[
        int, typer.Option(help="Processes that make speech and train codec and teacher, one thread each.")
    ] = 2,
) -> None:
    """Make the embedded voice from nothing: speech by Kokoro, a codec, a vocoder, an aligner, the teacher.

    Speech takes about a quarter of its own length on two cores, all else some three hours. Stop it at any time: the
    next run goes on.
    """
    chosen = stages or list(STAGES)
    unknown = sorted(set(chosen) - {*STAGES, *OTHERS})
    if unknown:
        raise typer.BadParameter(f"no stage {', '.join(unknown)}; there are {', '.join(STAGES + OTHERS)}")
    torch.set_num_threads(1 if "RANK" in os.environ else max(1, os.cpu_count() or 1))
    for name in chosen:
        started = time.monotonic()
        if name in SHARED and processes > 1 and "RANK" not in os.environ:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            command += ["-m", "recipes.mini", name, "--folder", str(folder), "--speed", str(speed)]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        else:
            stage(name, folder, hours, speed, target, processes)
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"{name}: done in {(time.monotonic() - started) / 60:.1f} min")


if __name__ == "__main__":
    typer.run(main)
