"""Which utterances of the speech say their text: Whisper tiny.en writes down what it hears of each shard.

    python -m recipes.mini.hearing

Kokoro stumbles over some texts, lone words above all; what was not understood is not learned. Beside ``NNNN.flac``
comes ``NNNN.heard.json``, a list of transcripts. A shard without one is taken as it is. Whisper listens in windows of
:data:`QUICK` seconds first, and in its usual ones to what it did not understand.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import soundfile
import typer

from recipes.mini.files import write_json
from recipes.mini.pool import each
from wandlib.evaluation.error_rates import ErrorCounts, count_errors, normalize
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.recognizers import WHISPER_SECONDS, FasterWhisper, Recognizer, plain_english
from wandlib.evaluation.report import markdown_table

QUICK = 15.0
"""Seconds of Whisper's window at the first hearing."""
MOST_ERRORS = 0.35
"""Characters wrong, of those in the text. Whisper mishears some good speech too, so that this is not small."""


def heard_path(source: Path) -> Path:
    """Where the transcripts of a shard of speech are."""
    return source.with_name(f"{source.stem}.heard.json")


def errors_of(text: str, heard: str) -> ErrorCounts:
    """Errors of what was heard, figures and abbreviations written alike on both sides."""
    # Whisper's normalizer takes "um" for no word.
    return count_errors(text, heard, plain_english if plain_english(text) else normalize)


def well_spoken(source: Path, entries: list[dict[str, Any]]) -> list[bool]:
    """For each utterance of a shard of speech, whether it was understood; all, where nothing has listened."""
    path = heard_path(source)
    if not path.exists():
        return [True] * len(entries)
    heard = json.loads(path.read_text(encoding="utf-8"))
    return [understood(errors_of(entry["text"], line)) for entry, line in zip(entries, heard, strict=True)]


def understood(count: ErrorCounts) -> bool:
    """Return whether what was heard is near enough to the text."""
    return count.character_errors <= MOST_ERRORS * count.characters


def listen(source: Path, quick: Recognizer, recognize: Recognizer) -> None:
    """Write the transcripts of one shard of speech, by ``recognize`` where ``quick`` did not understand."""
    sound, rate = soundfile.read(source, dtype="float32")
    heard = []
    for entry in json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))["utterances"]:
        utterance = sound[entry["start"] : entry["end"]]
        line = quick(utterance, rate)
        heard.append(line if understood(errors_of(entry["text"], line)) else recognize(utterance, rate))
    write_json(heard_path(source), heard)


def summary(folder: Path) -> list[dict[str, Any]]:
    """Rows by speaker and by source of the text: hours, word error rate, and the share that is left out."""
    groups: dict[str, list[tuple[float, ErrorCounts, bool]]] = defaultdict(list)
    for path in sorted(folder.glob("[0-9]*.heard.json")):
        source = path.with_name(path.name.replace(".heard.json", ".flac"))
        rate = soundfile.info(source).samplerate
        entries = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))["utterances"]
        transcripts = json.loads(path.read_text(encoding="utf-8"))
        for entry, line in zip(entries, transcripts, strict=True):
            count = errors_of(entry["text"], line)
            row = ((entry["end"] - entry["start"]) / rate, count, understood(count))
            for name in (entry["speaker"], entry["source"], "all"):
                groups[name].append(row)
    return [
        {
            "of": name,
            "utterances": len(rows),
            "hours": f"{sum(seconds for seconds, _, _ in rows) / 3600:.2f}",
            "WER": f"{sum(c.word_errors for _, c, _ in rows) / sum(c.words for _, c, _ in rows):.3f}",
            "left out": f"{sum(not good for _, _, good in rows) / len(rows):.3f}",
        }
        for name, rows in groups.items()
    ]


@functools.cache
def recognizer(window: float = WHISPER_SECONDS) -> FasterWhisper | Unavailable:
    """Whisper tiny.en on one thread, loaded once a process; or what to install."""
    try:
        return FasterWhisper(threads=1, window=window)
    except ImportError as error:
        return Unavailable(str(error))


def _listen(source: Path) -> None:
    quick, recognize = recognizer(QUICK), recognizer()
    if not isinstance(quick, Unavailable) and not isinstance(recognize, Unavailable):
        listen(source, quick, recognize)


def run(folder: Path, workers: int = 1) -> None:
    """Transcribe all finished shards that have no transcripts yet."""
    recognize = recognizer()
    if isinstance(recognize, Unavailable):
        typer.echo(f"the speech is not checked, all of it is taken: {recognize.reason}")
        return
    sources = [path for path in sorted(folder.glob("[0-9]*.flac")) if not heard_path(path).exists()]
    list(each(_listen, sources, workers, "hearing"))


def main(
    folder: Annotated[Path, typer.Option(envvar="WANDLIB_SPEECH", help="The speech.")] = Path("runs/mini/speech"),
) -> None:
    """Write down what is heard of the speech, and print a table."""
    run(folder)
    typer.echo(markdown_table(summary(folder)))


if __name__ == "__main__":
    typer.run(main)
