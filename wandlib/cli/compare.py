"""``wandlib compare``: one text with full attention and with the window, and what each cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from wandlib.cli import options
from wandlib.cli.options import (
    LIMIT_STATUS,
    Checkpoint,
    Device,
    Extra,
    Force,
    Reference,
    Seed,
    Speaker,
    Student,
    System,
    Temperature,
    TopK,
    Transcript,
    Window,
    check_new,
    chosen_voice,
    exit_on_input_error,
    seconds_spoken,
    system_settings,
    warn_of_limit,
)
from wandlib.systems import Speech
from wandlib.systems.settings import Attention, check_text


def compare(
    text: Annotated[str, typer.Argument(help="What to say.")],
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder for full.wav and window.wav.")] = Path("."),
    speaker: Speaker = None,
    reference: Reference = None,
    transcript: Transcript = None,
    extra: Extra = None,
    window: Window = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    system: System = "mini",
    checkpoint: Checkpoint = None,
    student: Student = None,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Speak TEXT twice, with full attention and with the window: two files and a table of what each cost."""
    with exit_on_input_error():
        check_text(text)
        for attention in get_args(Attention):
            check_new(folder / f"{attention}.wav", force)
        settings: dict[str, Any] = {"window": window, "seed": seed, "temperature": temperature, "top_k": top_k}
        own = system_settings(transcript, extra, settings)
        tts = options.load(system, checkpoint, device, student)
        voice = chosen_voice(speaker, reference, tts)
        # The first speech of a process is slow, which is no fault of its attention.
        tts.synthesize("Hello.", voice, **own)
        both: dict[str, Speech] = {}
        for attention in get_args(Attention):
            with seconds_spoken(tts, f"{attention} attention") as show:
                both[attention] = tts.synthesize(text, voice, attention, on_step=show, **settings, **own)
            both[attention].save(folder / f"{attention}.wav")
    Console().print(comparison(both))
    limited = [warn_of_limit(speech.trace) for speech in both.values()]
    if any(limited):
        raise typer.Exit(LIMIT_STATUS)


def comparison(both: dict[str, Speech]) -> Table:
    """Return the two costs in one table."""
    speeches = both.values()
    table = Table("", *both, box=None)
    table.add_row("window, keys", *(str(s.trace.window or "all") for s in speeches))
    table.add_row("sound, s", *(f"{s.seconds:.2f}" for s in speeches))
    table.add_row("steps", *(str(len(s.trace.steps)) for s in speeches))
    table.add_row("largest cache, kB", *(f"{max(s.trace.cache_bytes, default=0) / 1e3:.0f}" for s in speeches))
    table.add_row("median step, ms", *(f"{s.trace.median_milliseconds:.2f}" for s in speeches))
    table.add_row("prefill, ms", *(f"{s.trace.prefill_milliseconds:.1f}" for s in speeches))
    table.add_row("real-time factor", *(f"{s.real_time_factor:.2f}" for s in speeches))
    return table
