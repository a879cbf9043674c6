"""``wandlib prepare``: from recordings and their texts to a system's training set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wandlib.cli.options import Config, exit_on_input_error, say_line
from wandlib.systems.registry import TRAINING


def prepare(
    system: Annotated[str, typer.Option(help=f"Which system: {', '.join(TRAINING)}.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder of its checkpoint, as published.")],
    data: Annotated[
        Path,
        typer.Option(
            help='Recordings: a folder like LibriTTS or LJSpeech, or a .jsonl file, {"audio": path, "text": words, '
            '"speaker": who} a line.'
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder for the training set; a run that was stopped goes on there.")],
    processes: Annotated[int, typer.Option("--processes", "-p", min=1, help="On this machine.")] = 1,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Recordings at once.")] = 16,
    shard: Annotated[int, typer.Option(min=1, help="Recordings of a shard, the part that a stopped run loses.")] = 500,
    device: Annotated[str, typer.Option(help="Where it runs: cpu, cuda, cuda:1.")] = "cpu",
    config: Config = None,
) -> None:
    """Make a training set of recordings. Under `accelerate launch` the processes share the work, on any machines."""
    with exit_on_input_error():
        from wandlib.systems.preparation import prepare as write
        from wandlib.systems.settings import check_device

        check_device(device)
        made = write(system, checkpoint, data, to, processes=processes, batch=batch_size, shard=shard, device=device)
        for reason, count in sorted(made.skipped.items(), key=lambda item: -item[1]):
            say_line(f"left out: {count}, {reason}")
        if made.path is None:
            say_line(f"{made.utterances} utterances so far; other processes still work on {str(to)!r}")
            return
        say_line(f"{made.path}: {made.utterances} utterances")
        say_line(f"now: wandlib train --system {system} --checkpoint {checkpoint} --data {to} --output student")
