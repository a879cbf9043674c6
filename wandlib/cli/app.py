"""The command line: ``wandlib say``, ``compare``, ``profile``, ``prepare``, ``train``, ``export`` and ``evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from wandlib.cli.compare import compare
from wandlib.cli.evaluate import evaluate
from wandlib.cli.export import export
from wandlib.cli.prepare import prepare
from wandlib.cli.profile import profile
from wandlib.cli.say import say
from wandlib.cli.train import train

app = typer.Typer(no_args_is_help=True, help="Text-to-speech that costs the same per step however long it speaks.")
for command in (say, compare, profile, prepare, train, export, evaluate):
    app.command()(command)


def print_version(asked: bool) -> bool:
    """Print the version where it was asked for, and no more."""
    if asked:
        import wandlib

        typer.echo(f"wandlib {wandlib.__version__}")
        raise typer.Exit
    return asked


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Text-to-speech that costs the same per step however long it speaks."""
