"""``wandlib say``: text to a sound file, to a pipe, to the loudspeaker; from a pipe, or many texts from a file."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from wandlib.cli import options
from wandlib.cli.options import (
    LIMIT_STATUS,
    Attention,
    Checkpoint,
    Device,
    Extra,
    Force,
    Long,
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
    say_line,
    seconds_spoken,
    system_settings,
    warn_of_limit,
)
from wandlib.cli.sinks import FileSink, PlayerSink, Sink, WavSink, find_player
from wandlib.systems import InputError
from wandlib.systems.settings import check_text
from wandlib.systems.speech import sound_file
from wandlib.systems.streaming import SpeechStream

DEFAULT_FILE = Path("speech.wav")
PIPE = "-"


def say(
    text: Annotated[
        str | None, typer.Argument(help="What to say; - reads standard input and speaks line by line as it comes.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help=f"A .wav, .flac or .ogg file; - writes WAV to standard output. Default: {DEFAULT_FILE}, or --play.",
        ),
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play the sound while it is being made.")] = False,
    texts: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help='Many texts: a .jsonl file, {"text": ...} a line; also id, speaker, reference, transcript, and "set": '
            "{name: value}.",
        ),
    ] = None,
    folder: Annotated[Path | None, typer.Option("--to", help="Folder for the sound of --from.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts of --from that are decoded at once.")] = 16,
    attention: Attention = "window",
    speaker: Speaker = None,
    reference: Reference = None,
    transcript: Transcript = None,
    extra: Extra = None,
    window: Window = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    long: Long = None,
    system: System = "mini",
    checkpoint: Checkpoint = None,
    student: Student = None,
    device: Device = "cpu",
    list_speakers: Annotated[bool, typer.Option("--list-speakers", help="Print the built-in speakers.")] = False,
    force: Force = False,
) -> None:
    """Speak TEXT. Exit status 3: the length limit ended a sentence."""
    settings: dict[str, Any] = {
        "attention": attention, "window": window, "seed": seed, "temperature": temperature, "top_k": top_k,
        "long": long,
    }  # fmt: skip
    with exit_on_input_error():
        settings |= system_settings(transcript, extra, settings)
        if list_speakers:
            for name in options.load(system, checkpoint, device, student).speakers:
                typer.echo(name)
            return
        if texts is not None or folder is not None:
            from wandlib.cli.batch import Plan, read_texts, say_many
            from wandlib.systems.registry import SHIPPED

            if texts is None or folder is None or text is not None or output is not None or play:
                raise InputError("--from and --to belong together, without TEXT, --output and --play")
            voice = speaker if speaker is not None else reference
            if speaker is not None and reference is not None:
                raise InputError("give --speaker or --reference, not both")
            items = read_texts(texts, voice)
            if transcript is not None and any(item.lacks_transcript(voice) for item in items):
                raise InputError("--transcript is of --reference: give lines with another reference one of their own")
            if long == "one cache":
                raise InputError("--long 'one cache' is decoded alone, and --from in batches: leave it out")
            models = {"checkpoint": checkpoint, "student": student}
            shipped = SHIPPED.get(system) if checkpoint is None else None
            plan = Plan(items, folder, settings | {"system": system}, models, shipped, force=force)
            tts = None if plan.complete else options.load(system, checkpoint, device, student)
            raise typer.Exit(say_many(plan, tts, batch_size, settings))
        if text is None:
            raise InputError("nothing to say: give a text, - for standard input, or --from a file")
        target = check_output(output, play, force)
        said = standard_input() if text == PIPE else check_said(text)
        tts = options.load(system, checkpoint, device, student)
        voice = chosen_voice(speaker, reference, tts)
        with seconds_spoken(tts, f"{attention} attention") as show:
            stream = tts.stream(said, voice, on_step=show, **settings)
            deliver(stream, target, play, force=force)
    report(stream, target)
    if warn_of_limit(stream.trace):
        raise typer.Exit(LIMIT_STATUS)


def check_said(text: str) -> str:
    """Return ``text`` if there is something in it: better said before a system is loaded than after.

    Raises
    ------
    InputError
        If it is empty, or holds half of a character.
    """
    if not check_text(text).strip():
        raise InputError("the text is empty: write something to say")
    return text


def check_output(output: Path | None, play: bool, force: bool) -> Path | None:
    """Return the file to write; None: none.

    Raises
    ------
    InputError
        If it cannot be written or exists, or the sound would be printed to a terminal, or there is no player.
    """
    if play:
        find_player()
    if output is None:
        output = None if play else DEFAULT_FILE
    if output is None:
        return None
    if str(output) == PIPE:
        if sys.stdout is None:
            raise InputError("-o - writes to standard output, which is closed: name a file")
        if sys.stdout.isatty():
            raise InputError("-o - would print the sound to the terminal: pipe it to a program or a file")
        return output
    sound_file(output)
    check_new(output, force)
    return output


def standard_input() -> Iterator[str]:
    """Yield the lines of standard input as they come.

    Raises
    ------
    InputError
        If a line is not UTF-8.
    """
    for number, line in enumerate(iter(typer.get_binary_stream("stdin").readline, b""), 1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"line {number} of standard input is not UTF-8 text ({error.reason})") from error


def deliver(stream: SpeechStream, target: Path | None, play: bool, *, force: bool) -> None:
    """Bring the sound where it is wanted while it is being made; Ctrl-C and SIGTERM do not cost what was made."""
    sinks: list[Sink] = []
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        for sound in stream:
            if not sinks:  # nothing is opened before there is something to write
                sinks = open_sinks(stream.sample_rate, target, play, force=force)
            for sink in sinks:
                sink.write(sound)
    except BaseException:
        if sinks:
            say_line(f"ended before the text did: {stream.seconds:.1f} s of it were spoken")
        raise
    finally:
        for sink in sinks:
            sink.close()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def open_sinks(sample_rate: int, target: Path | None, play: bool, *, force: bool) -> list[Sink]:
    """Open the places that the sound goes to as it comes."""
    sinks: list[Sink] = []
    if target is not None and str(target) == PIPE:
        sinks.append(WavSink(typer.get_binary_stream("stdout"), sample_rate))
    elif target is not None:
        sinks.append(FileSink(target, sample_rate, force=force))
    if play:
        sinks.append(PlayerSink(sample_rate))
    return sinks


def report(stream: SpeechStream, target: Path | None) -> None:
    """Say what was made and what it cost."""
    trace = stream.trace
    name = "standard output" if str(target) == PIPE else str(target or "played")
    if not stream.seconds:
        say_line(f"{name}: nothing was spoken")
        return
    stalls = f", {trace.underruns} gaps for a listener" if trace.underruns else ""
    say_line(
        f"{name}: {stream.seconds:.1f} s in {stream.seconds_to_compute:.1f} s, first sound after "
        f"{trace.first_sound_milliseconds:.0f} ms, {trace.median_milliseconds:.1f} ms a step, cache "
        f"{max(trace.cache_bytes, default=0) / 1e6:.2f} MB{stalls}"
    )
