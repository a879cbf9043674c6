"""What the commands share: one console, errors as one line, the system to speak with, options from a TOML file.

No module of a command imports torch, or what does: ``--help``, and an error in the arguments, need not wait for it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from wandlib.systems import InputError
from wandlib.systems.registry import SYSTEMS, TRAINING, load_system

if TYPE_CHECKING:
    from typer import Context

    from wandlib.systems import SpeechSystem, Step, Trace
else:  # what typer hands over is of the class that its own derives from, and the tests check types at run time
    Context = typer.Context.__base__

console = Console(stderr=True)

LIMIT_STATUS = 3
"""Exit status where the length limit, not the model, ended a sentence."""

System = Annotated[str, typer.Option(help=f"Which system speaks: {', '.join(SYSTEMS)}.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Folder of the system's checkpoint; default: the embedded voice's own.")
]
Student = Annotated[
    Path | None,
    typer.Option(help="Folder of a student that wandlib train wrote: under the window it takes the model's place."),
]
TrainedSystem = Annotated[str | None, typer.Option("--system", help=f"Which system: {', '.join(TRAINING)}.")]
Device = Annotated[str, typer.Option(help="Where it runs: cpu, cuda, cuda:1, mps.")]
Speaker = Annotated[str | None, typer.Option("--speaker", "-s", help="A built-in speaker; default: the first.")]
Reference = Annotated[
    Path | None,
    typer.Option("--reference", help="An audio file with the voice to speak in; mini does not imitate people."),
]
Transcript = Annotated[str | None, typer.Option(help="What the recording of --reference says.")]
Extra = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting that the system alone has, name=value, such as pitch=high; may be repeated."),
]
Attention = Annotated[Literal["full", "window"], typer.Option("--attention", "-a", help="Which keys a step sees.")]
Window = Annotated[int | None, typer.Option("--window", "-w", help="Keys of generated codes each step sees.")]
Seed = Annotated[int, typer.Option(help="Seed of the sampling; matters above temperature 0.")]
Temperature = Annotated[
    float | None, typer.Option(help="Temperature of the sampling; 0, the default of the embedded voice, is greedy.")
]
TopK = Annotated[int | None, typer.Option(help="Sample among this many best codes.")]
Long = Annotated[
    Literal["one cache", "parts"] | None,
    typer.Option(help="A long text in one decode, or each part by itself; default: the system's choice."),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Write over files that exist.")]


def say_line(message: str) -> None:
    """Print a line to the console as it is, whatever characters it holds."""
    shown = message.encode("utf-8", "backslashreplace").decode("utf-8")
    console.print(shown, highlight=False, markup=False, soft_wrap=True)


def load(name: str, checkpoint: Path | None, device: str, student: Path | None = None) -> SpeechSystem:
    """Load a system, and say so meanwhile: it takes seconds."""
    with console.status(f"loading {name}"):
        if student is None:
            return load_system(name, checkpoint, device=device)
        return load_system(name, checkpoint, device=device, student=student)


def chosen_voice(speaker: str | None, reference: Path | None, system: SpeechSystem) -> str | Path | None:
    """Return the speaker's name or the reference file, whichever was given.

    Raises
    ------
    InputError
        If both were, or there is no such speaker.
    """
    if speaker is not None and reference is not None:
        raise InputError("give --speaker or --reference, not both")
    if speaker is not None and speaker not in system.speakers:
        raise InputError(f"no speaker named {speaker!r}: there are {', '.join(system.speakers) or 'none'}")
    return speaker if speaker is not None else reference


def system_settings(transcript: str | None, given: list[str] | None, shared: Iterable[str]) -> dict[str, Any]:
    """Return what a system alone takes, by name: the transcript, and ``name=value`` each; numbers are numbers.

    ``shared`` are the names that have an option of their own.

    Raises
    ------
    InputError
        If something is not of that form, or given twice.
    """
    settings: dict[str, Any] = {} if transcript is None else {"transcript": transcript}
    for one in given or []:
        name, sign, value = one.partition("=")
        if not name or not sign:
            raise InputError(f"--set {one!r} is not name=value: write --set pitch=high")
        if name in settings or name in shared:
            raise InputError(f"--set {one!r}: {name} is given already, or has the option --{name.replace('_', '-')}")
        try:
            number = json.loads(value)
        except ValueError:
            number = None
        settings[name] = number if isinstance(number, bool | int | float) else value
    return settings


def refuse_ignored(context: Context, ignored: Iterable[str], way: str) -> None:
    """Raise InputError if a parameter was given on the command line that has no effect on what was asked for.

    A default in a TOML file, which may serve several commands, is no such request.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in set(ignored) and source is not None and source.name == "COMMANDLINE":
            name = parameter.opts[0] if parameter.param_type_name == "option" else str(parameter.name).upper()
            raise InputError(f"{name} has no effect {way}: leave it out")


def check_new(path: Path, force: bool) -> None:
    """Raise InputError if ``path`` exists, unless it may be written over."""
    if path.exists() and not force:
        raise InputError(f"{str(path)!r} exists: name another file, or write over it with --force")


def check_parent(path: Path | None) -> None:
    """Raise InputError if ``path`` is in no folder: better before than after an hour."""
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"no folder {str(path.absolute().parent)!r} to write {path.name!r} to: make it first")


def warn_of_limit(trace: Trace) -> bool:
    """Say so where the length limit ended a sentence; return whether it did."""
    limited = trace.finish == "limit"
    if limited:
        say_line("the length limit ended a sentence: the model did not find its end; try another --window or --seed")
    return limited


@contextmanager
def seconds_spoken(system: SpeechSystem, name: str) -> Iterator[Callable[[Step], None]]:
    """Show how many seconds have been generated; gives what is to be called after each step."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[spoken]:.1f} s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=None, spoken=0.0)

        def show(step: Step) -> None:
            progress.update(task, spoken=(step.index + 1) / system.codes_per_second)

        yield show


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turn errors that a user can mend into one line and exit status 1."""
    try:
        yield
    except BrokenPipeError:  # who reads standard output has had enough: typer ends quietly
        raise
    except (InputError, OSError, ImportError) as error:
        cure = "; pip install 'wandlib[all]' installs every part" if isinstance(error, ModuleNotFoundError) else ""
        message = f"{error}{cure}".encode("utf-8", "backslashreplace").decode("utf-8")
        console.print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
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
    if not isinstance(settings, dict):
        raise typer.BadParameter(
            f"{str(path)!r} sets {context.info_name} to {settings!r}: write [{context.info_name}], a table"
        )
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
