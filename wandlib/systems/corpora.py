"""Recordings with their texts, in the three forms that corpora come in.

==========  =============================================================================================
LibriTTS    folders of speakers and chapters; beside ``x.wav`` its text in ``x.normalized.txt``
LJSpeech    ``metadata.csv``, lines of ``name|text`` or ``name|text|normalized text``; ``wavs/name.wav``
jsonl       a file, lines of ``{"audio": "path", "text": "words", "speaker": "who"}``, the speaker where it is known;
            paths start at the file's folder
==========  =============================================================================================

Each line is UTF-8 by itself. Where it is not, the bytes become halves of characters: that utterance is left out later,
as is one whose audio is no path. A line that has not the form is an error, which names it.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wandlib.systems.settings import InputError

ENDINGS = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True)
class Recording:
    """An utterance of a corpus.

    Attributes
    ----------
    audio
        Its file.
    text
        What it says.
    normalized
        Whether numbers and abbreviations are written out already.
    speaker
        Who speaks; None: not known.
    other
        Another recording of the same speaker, for systems that learn a voice from other words than the utterance's;
        None: there is none.
    """

    audio: Path
    text: str
    normalized: bool
    speaker: str | None = None
    other: Recording | None = None


def find_recordings(data: str | Path) -> list[Recording]:
    """Return the utterances of a corpus, in a fixed order.

    Raises
    ------
    InputError
        If there is no such corpus, its form is none of the three, or a line of it cannot be used.
    """
    root = Path(data)
    if root.is_file() and root.suffix == ".jsonl":
        found = _jsonl(root)
    elif (root / "metadata.csv").is_file():
        found = _ljspeech(root)
    elif root.is_dir():
        found = _libritts(root)
    else:
        raise InputError(f"no corpus at {str(root)!r}: give a folder like LibriTTS or LJSpeech, or a .jsonl file")
    if not found:
        raise InputError(
            f"no utterances in {str(root)!r}: there is no metadata.csv, and no .normalized.txt beside a recording"
        )
    return with_others(found)


def with_others(recordings: Sequence[Recording]) -> list[Recording]:
    """Return the recordings, each with another one of its speaker: the same in every run, and spread over all."""
    by = defaultdict[str, list[int]](list)
    for index, recording in enumerate(recordings):
        if recording.speaker is not None:
            by[recording.speaker].append(index)
    paired = list(recordings)
    for indices in by.values():
        for place, index in enumerate(indices if len(indices) > 1 else []):
            step = 1 + zlib.crc32(recordings[index].audio.name.encode(errors="surrogatepass")) % (len(indices) - 1)
            other = recordings[indices[(place + step) % len(indices)]]
            paired[index] = replace(recordings[index], other=other)
    return paired


def _libritts(root: Path) -> list[Recording]:
    found = []
    for words in sorted(root.rglob("*.normalized.txt")):
        stem = words.name.removesuffix(".normalized.txt")
        audio = next((file for end in ENDINGS if (file := words.with_name(stem + end)).is_file()), None)
        if audio is not None:
            speaker = stem.partition("_")[0]  # LibriTTS: speaker_chapter_paragraph_sentence
            found.append(Recording(audio, _decoded(words.read_bytes()).strip(), normalized=True, speaker=speaker))
    return found


def _ljspeech(root: Path) -> list[Recording]:
    found = []
    for number, line in _lines(root / "metadata.csv"):
        fields = line.split("|")
        if len(fields) < 2:
            raise InputError(f"line {number} of metadata.csv has no '|': it must be name|text or name|text|normalized")
        audio = root / "wavs" / fields[0]
        audio = audio if audio.suffix in ENDINGS else Path(f"{audio}.wav")
        found.append(Recording(audio, fields[-1].strip(), normalized=len(fields) > 2, speaker=root.name))
    return found


def _jsonl(path: Path) -> list[Recording]:
    found = []
    for number, line in _lines(path):
        try:
            row = json.loads(line, strict=False)
            audio, text, speaker = row["audio"], row["text"], row.get("speaker")
            if not isinstance(text, str | None):
                raise TypeError(f"text is {text!r}, not a string")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'line {number} of {path.name} is not {{"audio": "path", "text": "words"}}: {error!r}'
            ) from error
        known = None if speaker is None else str(speaker)
        found.append(Recording(path.parent / str(audio), (text or "").strip(), normalized=False, speaker=known))
    return found


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with their numbers; only what ends a line of bytes ends one."""
    for number, line in enumerate(map(_decoded, file.read_bytes().splitlines()), 1):
        if line.strip():
            yield number, line


def _decoded(text: bytes) -> str:
    """Return the text without the mark that some editors put before UTF-8; half of a character for what is none."""
    return text.decode("utf-8-sig", "surrogateescape")
