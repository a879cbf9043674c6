"""A recording is encoded once for many texts; a file that changed is another recording."""

from __future__ import annotations

import os
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import recordings
from tiny_checkpoints import SETTINGS, WRITERS

import wandlib
from wandlib.systems.remembered import KEPT, Remembered

ENCODERS = {
    "cosyvoice2": "wandlib.systems.cosyvoice2.voice.encode",
    "sparktts": "wandlib.systems.sparktts.reference.ReferenceReader.read",
    "indextts": "wandlib.systems.indextts.system.read_reference",
    "neutts": "wandlib.systems.codec_lm.reference.read_sound",
    "llasa": "wandlib.systems.codec_lm.reference.read_sound",
    "mini": "wandlib.systems.mini.system.read_reference",
}


@pytest.mark.parametrize("name", [*WRITERS, "mini"])
def test_a_voice_is_encoded_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wandlib.systems.sparktts.system.MAXIMUM_TOKENS", 20)
    monkeypatch.setattr("wandlib.systems.codec_lm.system.CONTEXT", 300)
    if name in WRITERS:
        WRITERS[name](tmp_path / "folder")
    folder, settings = (tmp_path / "folder", SETTINGS[name]) if name in WRITERS else (None, {})
    voices = [recordings.write(tmp_path / f"{letter}.wav") for letter in "ab"]
    tts = wandlib.load_system(name, folder)
    calls, encode = [], pkgutil.resolve_name(ENCODERS[name])

    def noted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return encode(*arguments, **options)

    monkeypatch.setattr(ENCODERS[name], noted)
    tts.synthesize_many(["HI.", "HO.", "HE."], [*voices, voices[0]], "window", **settings)
    list(tts.stream(iter(["Hello there my friend. ", "How are you? "]), voices[1], "window", **settings))
    assert len(calls) == 2


def test_what_is_remembered(tmp_path: Path) -> None:
    made = []

    def make(path: Path) -> str:
        made.append(path.name)
        return path.read_text()

    remembered, path = Remembered(make), tmp_path / "a"
    path.write_text("one")
    assert [remembered(path), remembered(str(path))] == ["one", "one"]
    path.write_text("other")
    os.utime(path, ns=(1, 1))
    assert remembered(path) == "other"
    assert made == ["a", "a"]
    for number in range(KEPT):
        (tmp_path / str(number)).touch()
        remembered(tmp_path / str(number))
        remembered(path)  # used all the time: stays
    assert made.count("a") == 2
    remembered(tmp_path / "0")
    assert made.count("0") == 2
    with pytest.raises(FileNotFoundError):
        remembered(tmp_path / "none")


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "a\0b.wav"])
def test_a_name_that_no_file_can_have_is_left_to_who_reads_it(name: str) -> None:
    made = Remembered(lambda recording: recording)
    assert made(name) == Path(name)
