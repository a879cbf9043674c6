"""``wandlib evaluate``: error rates, similarity and failures of a voice, full attention against the window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from wandlib.cli import options
from wandlib.cli.options import (
    Checkpoint,
    Config,
    Context,
    Extra,
    Force,
    Student,
    System,
    check_new,
    check_parent,
    console,
    exit_on_input_error,
    refuse_ignored,
    say_line,
    system_settings,
)
from wandlib.systems import InputError

if TYPE_CHECKING:
    from wandlib.evaluation.report import Report


class Attentions(StrEnum):
    """Which keys a step sees; typer reads a list of choices from enumerations only."""

    full = "full"
    window = "window"


class Predictors(StrEnum):
    """The names of :data:`wandlib.evaluation.mos.PREDICTORS`."""

    dnsmos = "dnsmos"
    squim = "squim"
    squim_subjective = "squim-subjective"
    utmos = "utmos"


def evaluate(
    context: Context,
    texts: Annotated[
        Path | None, typer.Argument(help="A text file, one sentence a line; default: ten Harvard sentences.")
    ] = None,
    speakers: Annotated[
        list[str] | None,
        typer.Option("--speaker", "-s", help="Built-in speaker or audio file; repeat for several; default: all."),
    ] = None,
    transcripts: Annotated[
        list[str] | None,
        typer.Option("--transcript", help="What the recording of --speaker says; one for each, in the same order."),
    ] = None,
    extra: Extra = None,
    attentions: Annotated[
        list[Attentions] | None,
        typer.Option("--attention", "-a", help="Which keys a step sees; default: full, then window."),
    ] = None,
    window: Annotated[
        int | None, typer.Option("--window", "-w", help="Keys of generated codes each step sees.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, 2, ... Greedy decoding needs 1.")] = 1,
    temperature: Annotated[float | None, typer.Option(help="Of the sampling; default: the system's own.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample among this many best codes.")] = None,
    recognizer: Annotated[
        Literal["faster-whisper", "whisper", "wav2vec2", "pocketsphinx"],
        typer.Option(
            help="Who transcribes: faster-whisper (tiny.en, offline), pocketsphinx (offline, weak), or whisper or "
            "wav2vec2, whose weights are fetched."
        ),
    ] = "faster-whisper",
    recognizer_model: Annotated[
        str | None,
        typer.Option(
            help="Size or folder (faster-whisper), hub name or folder (whisper; default: large-v3), name of a "
            "torchaudio bundle (wav2vec2)."
        ),
    ] = None,
    encoder: Annotated[
        Literal["resemblyzer", "wavlm"], typer.Option(help="Who knows voices; wavlm is the paper's, and fetched.")
    ] = "resemblyzer",
    encoder_model: Annotated[str | None, typer.Option(help="Hub name or folder of a WavLM x-vector model.")] = None,
    mos: Annotated[
        list[Predictors] | None,
        typer.Option(
            help="MOS predictor; repeat for several. dnsmos works offline, the others are fetched, and left out, with "
            "the reason, without a network."
        ),
    ] = None,
    system: System = "mini",
    checkpoint: Checkpoint = None,
    student: Student = None,
    device: Annotated[str, typer.Option(help="Where system, recognizer and encoder run: cpu, cuda.")] = "cpu",
    by_speaker: Annotated[bool, typer.Option("--by-speaker", help="A row for each speaker.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write every utterance to this file.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as markdown.")] = False,
    force: Force = False,
    config: Config = None,
) -> None:
    """Measure the voice: WER, CER and similarity with 95 % intervals, failures and costs, full against window."""
    with exit_on_input_error():
        kinds: list[Any] = [kind.value for kind in dict.fromkeys(attentions or Attentions)]
        if recognizer == "pocketsphinx":
            refuse_ignored(context, {"recognizer_model"}, "with --recognizer pocketsphinx")
        if encoder == "resemblyzer":
            refuse_ignored(context, {"encoder_model"}, "with --encoder resemblyzer")
        if kinds == ["full"]:
            refuse_ignored(context, {"window", "student"}, "with --attention full alone")
        read = None if texts is None else read_sentences(texts)
        given = with_transcripts(speakers or [], transcripts or [])
        settings: dict[str, Any] = {"window": window, "temperature": temperature, "top_k": top_k}
        settings |= system_settings(None, extra, {"attention", "seed", "transcript", *settings})
        check_parent(json)
        if json is not None:
            check_new(json, force)

        from wandlib.evaluation import error_rates
        from wandlib.evaluation.measurement import SENTENCES
        from wandlib.evaluation.measurement import evaluate as measure
        from wandlib.evaluation.mos import mos_predictors
        from wandlib.evaluation.report import Report
        from wandlib.evaluation.voices import check_speakable, reference_sounds, voices_of

        sentences = dict.fromkeys(SENTENCES, "") if read is None else read
        tts = options.load(system, checkpoint, device, student)
        if transcripts and "transcript" not in {field.name for field in fields(tts.settings_type)}:
            raise InputError(f"--transcript: {system} has no use for what a recording says: leave it out")
        voices = voices_of(tts, given, **settings)
        for own in voices.values():
            tts.settings_type.make(own)  # what is wrong with every text is not to be said of the first
        for text, where in sentences.items():
            with named(where):
                check_speakable(tts, text, voices, kinds, range(seeds))
        listener = load_recognizer(recognizer, recognizer_model, device)
        for text, where in sentences.items():
            with named(where):
                error_rates.count_errors(text, text, getattr(listener, "normalize", error_rates.normalize))
        references = reference_sounds(tts, voices)
        clean = references.get(next(iter(voices)) or "")
        reference = None if clean is None else (clean, tts.sample_rate)
        predictors = mos_predictors([kind.value for kind in mos or ()], reference)
        ear = load_encoder(encoder, encoder_model, device)
        report, total = Report({}), len(kinds) * len(sentences) * len(voices) * seeds
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        try:
            with Progress(*columns, console=console, transient=True) as progress:
                task = progress.add_task("utterances", total=total)

                def keep(_: Any) -> None:
                    progress.advance(task)
                    if json is not None:
                        write(report, json)

                measure(
                    tts,
                    list(sentences),
                    speakers=given,
                    attentions=kinds,
                    seeds=range(seeds),
                    recognizer=listener,
                    encoder=ear,
                    mos=predictors,
                    references=references,
                    report=report,
                    on_utterance=keep,
                    **settings,
                )
        finally:
            done = len(report.utterances)
            if 0 < done < total:
                say_line(f"ended before all was spoken: this is of {done} of {total} utterances")
            if done:
                show(report, markdown=markdown, by_speaker=by_speaker, compare=done == total)


def show(report: Report, *, markdown: bool, by_speaker: bool, compare: bool) -> None:
    """Print the tables; ``compare`` is whether all conditions are of the same utterances."""
    if markdown:
        typer.echo(report.markdown(by_speaker=by_speaker))
        return
    Console().print(transposed(report.table(by_speaker=by_speaker)))
    if compare and len(report.conditions) > 1:
        Console().print("\nDifference on the same sentences, paired, with its 95 % interval:")
        Console().print(transposed(report.differences(report.conditions[0])))
    for name, reason in report.unavailable.items():
        console.print(f"not measured: {name} ({reason})", highlight=False, markup=False)


def write(report: Report, path: Path) -> None:
    """Write all utterances so far; whatever ends the program, the file is whole."""
    unfinished = path.with_name(f".{path.name}.part")
    report.to_json(unfinished)
    unfinished.replace(path)


def with_transcripts(speakers: Sequence[str], transcripts: Sequence[str]) -> dict[str, dict[str, str]] | None:
    """Return the speakers and what the recording of each says, as ``evaluate`` takes them; None: there are none.

    Raises
    ------
    InputError
        If there are transcripts, but not one for each.
    """
    if transcripts and len(transcripts) != len(speakers):
        raise InputError(
            f"--transcript is what the recording of --speaker says: give one for each, in the same order, not "
            f"{len(transcripts)} for {len(speakers)}"
        )
    own = [{"transcript": said} for said in transcripts] or [{} for _ in speakers]
    return dict(zip(speakers, own, strict=True)) or None


@contextmanager
def named(where: str) -> Iterator[None]:
    """Say where the text stands that cannot be used; "": nowhere."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from error


def read_sentences(path: Path) -> dict[str, str]:
    """Return the lines of a text file and where they stand, without empty ones and without those that begin with #.

    Raises
    ------
    InputError
        When there are none, one has no words or comes twice, or the file is not UTF-8.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not UTF-8 text ({error.reason}): save it as such") from error

    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        if not any(map(str.isalnum, line)):
            raise InputError(f"line {number} of {str(path)!r} has no words: {line!r}")
        if line in found:
            raise InputError(f"lines {found[line]} and {number} of {str(path)!r} are the same: {line!r}; keep one")
        found[line] = number
    if not found:
        raise InputError(f"no sentences in {str(path)!r}: write one a line")
    return {line: f"line {number} of {str(path)!r}" for line, number in found.items()}


def load_recognizer(name: str, model: str | None, device: str) -> Any:
    """Return the recognizer of that name."""
    from wandlib.evaluation import recognizers, wav2vec2

    if name == "pocketsphinx":
        return recognizers.PocketSphinx()
    if name == "faster-whisper" and model is None:
        return recognizers.default_recognizer()
    if name == "faster-whisper":
        return recognizers.FasterWhisper(model, device=device)
    kind = recognizers.Whisper if name == "whisper" else wav2vec2.Wav2Vec2
    try:
        return kind(device=device) if model is None else kind(model, device=device)
    except ValueError as error:  # no such bundle
        raise InputError(str(error)) from error


def load_encoder(name: str, model: str | None, device: str) -> Any:
    """Return the speaker encoder of that name."""
    from wandlib.evaluation import speakers

    if name == "resemblyzer":
        return speakers.Resemblyzer()
    return speakers.WavLMXVector(device=device) if model is None else speakers.WavLMXVector(model, device=device)


def transposed(frame: Any) -> Table:
    """Return a data frame for the terminal, its rows as columns: a terminal is narrow."""
    heads = [column for column in ("condition", "speaker") if column in frame.columns]
    table = Table("", *(" ".join(row) for row in frame[heads].itertuples(index=False)), box=None)
    for column in frame.columns.drop(heads):
        table.add_row(column, *(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in frame[column]))
    return table
