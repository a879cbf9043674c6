"""``wandlib export``: a student in the files that the published code of its system reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from wandlib.cli.options import Force, check_new, exit_on_input_error, say_line
from wandlib.systems import InputError
from wandlib.systems.registry import TRAINING


def export(
    student: Annotated[Path, typer.Argument(help="Folder that wandlib train wrote.")],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="File or folder to write: llm.pt, LLM, gpt.pth.")],
    to: Annotated[str, typer.Option(help=f"The system whose files these are: {', '.join(TRAINING)}.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of the published checkpoint; default: the one that was trained.")
    ] = None,
    force: Force = False,
) -> None:
    """Write STUDENT as FILE. What training left alone is the original bit for bit; else nothing is written."""
    with exit_on_input_error():
        from wandlib.systems.registry import training_of

        training = training_of(to)
        if not student.is_dir():
            raise InputError(f"no folder {str(student)!r}: give the one that wandlib train wrote")
        original = checkpoint or trained_checkpoint(student, training.base.system)
        if checkpoint is not None and not checkpoint.is_dir():
            raise InputError(f"no folder {str(checkpoint)!r}: give the published checkpoint")
        check_new(target, force)
        with replacing(target) as unfinished:
            notes = training.export(student, unfinished, original)
        say_line(
            f"{target}: put it in the place of {training.place}. The published code reads it, and runs it under full "
            "attention"
        )
        for note in notes:
            say_line(note)


def trained_checkpoint(student: Path, system: str) -> Path | None:
    """Return the checkpoint that a student was made of, if its folder says so and it is still there.

    Raises
    ------
    InputError
        If it was made of another system, or its folder's note cannot be read.
    """
    from wandlib.systems.training import NOTE

    if not (student / NOTE).is_file():
        return None
    try:
        note = json.loads((student / NOTE).read_text(encoding="utf-8"))
        if note["system"] != system:
            raise InputError(f"{str(student)!r} is a student of {note['system']}: export it --to {note['system']}")
        original = Path(note["checkpoint"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{str(student / NOTE)!r} is broken ({error}): write it anew, or remove it") from error
    return original if original.is_dir() else None


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a name beside ``target`` to write to; it takes the target's place where all went well, else it is removed.

    Raises
    ------
    InputError
        If the target is a folder, which is never written over.
    """
    if target.is_dir():
        raise InputError(f"{str(target)!r} is a folder, which is not written over: name another")
    unfinished = target.with_name(f".{target.stem}.part{target.suffix}")
    remove(unfinished)
    try:
        yield unfinished
        if unfinished.is_dir():
            target.unlink(missing_ok=True)
        unfinished.replace(target)
    finally:
        remove(unfinished)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
