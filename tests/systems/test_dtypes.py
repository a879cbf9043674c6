"""Language models in 16 bits: every published system speaks, and what is profiled runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import recordings
import torch
from tiny_checkpoints import SETTINGS, WRITERS

import wandlib
from wandlib.profiling.measure import profile
from wandlib.systems.registry import training_of


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", WRITERS)
def test_speech_in_16_bits(name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wandlib.systems.sparktts.system.MAXIMUM_TOKENS", 30)
    monkeypatch.setattr("wandlib.systems.codec_lm.system.CONTEXT", 300)
    WRITERS[name](tmp_path / "folder")
    tts = wandlib.load_system(name, tmp_path / "folder", dtype=dtype)
    assert tts.language_model.dtype == dtype  # type: ignore[attr-defined]
    voice = recordings.write(tmp_path / "voice.wav")
    for attention in ("full", "window"):
        speech = tts.synthesize("HI.", voice, attention, seed=1, **SETTINGS[name])
        assert len(speech.waveform) > 0
        assert np.isfinite(speech.waveform).all()


@pytest.mark.parametrize("name", WRITERS)
def test_profile_in_16_bits(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    model = wandlib.convert(training_of(name).language_model(tmp_path, torch.bfloat16).eval(), window=4)
    assert len(profile(model, 5, 3, warmup=1).milliseconds) == 3
