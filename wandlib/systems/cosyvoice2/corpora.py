"""Recordings with their texts, in the three forms that corpora come in.

==========  =============================================================================================
LibriTTS    folders of speakers and chapters; beside ``x.wav`` its text in ``x.normalized.txt``
LJSpeech    ``metadata.csv``, lines of ``name|text`` or ``name|text|normalized text``; ``wavs/name.wav``
jsonl       a file, lines of ``{"audio": "path", "text": "words"}``; paths start at the file's folder
==========  =============================================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from wandlib.systems.base import InputError

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
    """

    audio: Path
    text: str
    normalized: bool


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
    return found


def _libritts(root: Path) -> list[Recording]:
    found = []
    for words in sorted(root.rglob("*.normalized.txt")):
        stem = words.name.removesuffix(".normalized.txt")
        audio = next((file for end in ENDINGS if (file := words.with_name(stem + end)).is_file()), None)
        if audio is not None:
            found.append(Recording(audio, words.read_text(encoding="utf-8").strip(), normalized=True))
    return found


def _ljspeech(root: Path) -> list[Recording]:
    found = []
    for number, line in enumerate((root / "metadata.csv").read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split("|")
        if len(fields) < 2:
            raise InputError(f"line {number} of metadata.csv has no '|': it must be name|text or name|text|normalized")
        audio = root / "wavs" / fields[0]
        audio = audio if audio.suffix in ENDINGS else audio.with_name(audio.name + ".wav")
        found.append(Recording(audio, fields[-1].strip(), normalized=len(fields) > 2))
    return found


def _jsonl(path: Path) -> list[Recording]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            audio, text = row["audio"], row["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f'line {number} of {path.name} is not {{"audio": "path", "text": "words"}}: {error!r}'
            ) from error
        found.append(Recording(path.parent / audio, str(text).strip(), normalized=False))
    return found
