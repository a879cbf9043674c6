"""What every published system makes of input that it cannot use: one line that says what and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
import soundfile
import torch
from tiny_checkpoints import WRITERS

import wandlib
from wandlib.systems.base import InputError, SpeechSystem
from wandlib.systems.registry import TRAINING

LONGEST = {"cosyvoice2": 30, "sparktts": 60, "indextts": 60, "neutts": 20, "llasa": 20}
"""Seconds of a reference."""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    recordings.write(folder / "voice.wav")
    recordings.write(folder / "long.wav", seconds=61.0, rate=16_000)
    soundfile.write(folder / "silent.wav", np.zeros(32_000, np.float32), 16_000)
    (folder / "words.wav").write_text("no sound")
    return folder


@pytest.fixture(scope="module", params=TRAINING)
def tts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SpeechSystem:
    folder = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](folder)
    return wandlib.load_system(request.param, folder)


def say(tts: SpeechSystem, text: str, reference: Path) -> Any:
    said = {} if tts.name == "indextts" else {"transcript": "YOU."}
    return tts.synthesize(text, reference, "window", **said)


def test_symbols_are_no_text(tts: SpeechSystem, sounds: Path) -> None:
    for text in ("?!", "€ § %", "  ", "…"):
        with pytest.raises(InputError, match="nothing to"):
            say(tts, text, sounds / "voice.wav")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("silent.wav", "silent|0.00 s of sound"),
        ("long.wav", r"lasts 61(\.0)? s, the limit is {longest}"),
        ("words.wav", "is not audio that can be read"),
        ("none.wav", "no reference file 'none.wav'"),
    ],
)
def test_references_that_are_none(name: str, message: str, tts: SpeechSystem, sounds: Path) -> None:
    with pytest.raises(InputError, match=message.replace("{longest}", str(LONGEST[tts.name]))):
        say(tts, "HI.", sounds / name)


def test_tags_are_refused_where_they_would_be_read_as_the_prompt_s_own(tts: SpeechSystem, sounds: Path) -> None:
    """CosyVoice 2 takes them, as its tokenizer has tokens for a laugh or a breath; IndexTTS knows no such token."""
    if tts.name in {"cosyvoice2", "indextts"}:
        assert tts.name == "indextts" or len(say(tts, "HI <|endofprompt|>", sounds / "voice.wav").codes)
        return
    with pytest.raises(InputError, match="special token"):
        say(tts, "HI <|im_end|>", sounds / "voice.wav")


def test_memory_that_runs_out_is_said_with_the_cure(tts: SpeechSystem, sounds: Path) -> None:
    model: Any = tts.language_model  # type: ignore[attr-defined]

    def full(*arguments: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = model.get_output_embeddings().register_forward_pre_hook(full)
    try:
        with pytest.raises(InputError, match=r"too little memory: load with dtype=torch\.bfloat16"):
            say(tts, "HI.", sounds / "voice.wav")
        said = {} if tts.name == "indextts" else {"transcript": "YOU."}
        with pytest.raises(InputError, match=r"too little memory: load with dtype=torch\.bfloat16"):
            tts.synthesize_many(["HI.", "HO."], sounds / "voice.wav", "window", **said)
    finally:
        handle.remove()
