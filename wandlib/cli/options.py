"""What the commands share: one console, errors as one line, and options from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from wandlib.systems import InputError

console = Console(stderr=True)


def writable(path: Path | None) -> None:
    """Raise InputError if ``path`` is in no folder: better before than after an hour."""
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"no folder {str(path.absolute().parent)!r} to write {path.name!r} to: make it first")


@contextmanager
def explained() -> Iterator[None]:
    """Errors that a user can mend become one line, not a traceback."""
    try:
        yield
    except (InputError, OSError, ImportError) as error:
        cure = "; pip install 'wandlib[all]' installs every part" if isinstance(error, ModuleNotFoundError) else ""
        console.print(f"[red]error:[/red] {escape(str(error) + cure)}", highlight=False)
        raise typer.Exit(1) from error


def read_config(context: Any, path: Path | None) -> Path | None:
    """Take defaults of a command's options from a TOML file: ``seeds = 5`` is ``--seeds 5``.

    An array is an option repeated. A table with the command's name is read if there is one, so that one file may serve
    several commands; what stands on the command line wins.

    Raises
    ------
    typer.BadParameter
        When the file cannot be read, or names no option of the command.
    """
    if path is None:
        return None
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise typer.BadParameter(f"cannot read {str(path)!r}: {error}") from error
    settings = settings.get(str(context.info_name), settings)
    known = {
        option.lstrip("-"): str(parameter.name)
        for parameter in context.command.params
        for option in parameter.opts
        if len(option) > 2 and parameter.name not in {"config", "help"}
    }
    unknown = sorted(settings.keys() - known.keys())
    if unknown:
        raise typer.BadParameter(
            f"{str(path)!r} sets {', '.join(unknown)}, which {context.info_name} does not have: it has "
            f"{', '.join(sorted(known))}"
        )
    wanted = {known[name]: value for name, value in settings.items()}
    context.default_map = {**(context.default_map or {}), **wanted}
    return path


Config = Annotated[
    Path | None,
    typer.Option(callback=read_config, is_eager=True, help="A TOML file with defaults of these options."),
]
