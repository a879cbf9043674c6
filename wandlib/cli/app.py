"""The command line: ``wandlib say``, ``compare``, ``profile``, ``train`` and ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from wandlib.cli.evaluate import evaluate
from wandlib.cli.options import console, explained
from wandlib.cli.profile import profile
from wandlib.cli.train import train
from wandlib.systems import InputError, Speech, SpeechSystem, Step, load_system
from wandlib.systems.base import sound_file

app = typer.Typer(no_args_is_help=True, help="Text-to-speech that costs the same per step however long it speaks.")
app.command()(profile)
app.command()(train)
app.command()(evaluate)

Text = Annotated[str, typer.Argument(help="What to say.")]
Speaker = Annotated[str | None, typer.Option("--speaker", "-s", help="A built-in speaker; default: the first.")]
Reference = Annotated[Path | None, typer.Option("--reference", help="An audio file with the voice to speak in.")]
Window = Annotated[int | None, typer.Option("--window", "-w", help="Keys of generated codes each step sees.")]
Seed = Annotated[int, typer.Option(help="Of the sampling; matters above temperature 0.")]
Temperature = Annotated[
    float | None, typer.Option(help="Of the sampling; 0, the default of the embedded voice, is greedy.")
]
TopK = Annotated[int | None, typer.Option(help="Sample among this many best codes.")]


def chosen_voice(speaker: str | None, reference: Path | None, system: SpeechSystem) -> str | Path | None:
    """The speaker's name or the reference file, whichever was given."""
    if speaker is not None and reference is not None:
        raise InputError("give --speaker or --reference, not both")
    if speaker is not None and speaker not in system.speakers:
        raise InputError(f"no speaker named {speaker!r}: there are {', '.join(system.speakers)}")
    return speaker if speaker is not None else reference


def speak(system: SpeechSystem, text: str, attention: Literal["full", "window"], **settings: object) -> Speech:
    """Synthesise with a line that counts the seconds spoken so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[spoken]:.1f} s"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{attention} attention", total=None, spoken=0.0)

        def show(step: Step) -> None:
            progress.update(task, spoken=(step.index + 1) / system.codes_per_second)

        return system.synthesize(text, attention=attention, on_step=show, **settings)  # type: ignore[arg-type]


@app.command()
def say(
    text: Text,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the sound goes: .wav, .flac or .ogg.")] = Path(
        "speech.wav"
    ),
    attention: Annotated[
        Literal["full", "window"], typer.Option("--attention", "-a", help="Which keys a step sees.")
    ] = "window",
    speaker: Speaker = None,
    reference: Reference = None,
    window: Window = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
) -> None:
    """Speak TEXT into a sound file."""
    with explained():
        sound_file(output)  # a wrong ending is better said before than after
        system = load_system("mini")
        voice = chosen_voice(speaker, reference, system)
        speech = speak(
            system, text, attention, reference=voice, window=window, seed=seed, temperature=temperature, top_k=top_k
        )  # fmt: skip
        speech.save(output)
    console.print(
        f"{output}: {speech.seconds:.1f} s in {speech.seconds_to_compute:.1f} s, "
        f"{speech.trace.median_milliseconds:.1f} ms a step, cache {speech.trace.cache_bytes[-1] / 1e6:.2f} MB"
        if speech.trace.steps
        else f"{output}: nothing was spoken",
        highlight=False,
    )


@app.command()
def compare(
    text: Text,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder for full.wav and window.wav.")] = Path("."),
    speaker: Speaker = None,
    reference: Reference = None,
    window: Window = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
) -> None:
    """Speak TEXT twice, with full attention and with the window: two files and a table of what each cost."""
    with explained():
        system = load_system("mini")
        voice = chosen_voice(speaker, reference, system)
        system.synthesize("Hello.")  # the first speech of a process is slow, which is no fault of its attention
        both = {}
        for attention in ("full", "window"):
            both[attention] = speak(
                system, text, attention, reference=voice, window=window, seed=seed, temperature=temperature, top_k=top_k
            )  # fmt: skip
            both[attention].save(folder / f"{attention}.wav")
    Console().print(comparison(both))


def comparison(both: dict[str, Speech]) -> Table:
    """The two costs side by side."""
    table = Table("", *both, box=None)
    table.add_row("window, keys", *(str(s.trace.window or "all") for s in both.values()))
    table.add_row("sound, s", *(f"{s.seconds:.2f}" for s in both.values()))
    table.add_row("steps", *(str(len(s.trace.steps)) for s in both.values()))
    table.add_row("cache at the end, kB", *(f"{max(s.trace.cache_bytes, default=0) / 1e3:.0f}" for s in both.values()))
    table.add_row("median step, ms", *(f"{s.trace.median_milliseconds:.2f}" for s in both.values()))
    table.add_row("prefill, ms", *(f"{s.trace.prefill_milliseconds:.1f}" for s in both.values()))
    table.add_row("real-time factor", *(f"{s.real_time_factor:.2f}" for s in both.values()))
    return table
