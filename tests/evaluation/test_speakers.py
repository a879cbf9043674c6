"""Speaker encoders: unit vectors that know a voice again, from a ready model and from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_instruments
import torch
from numpy.typing import NDArray

from wandlib.evaluation.speakers import Resemblyzer, WavLMXVector, similarity


@pytest.fixture(scope="module")
def sound() -> NDArray[np.float32]:
    """Three seconds at 16 kHz of a buzz that swells and fades."""
    time = np.arange(48_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20)) * (1 + np.sin(2 * np.pi * 3 * time))
    return (0.05 * voice + 0.001 * np.random.default_rng(0).normal(size=len(time))).astype(np.float32)


def test_a_voice_is_itself_at_any_level_and_rate(sound: NDArray[np.float32]) -> None:
    encode = Resemblyzer()
    own = encode(sound, 16_000)
    assert np.linalg.norm(own) == pytest.approx(1, abs=1e-3)
    assert similarity(own, encode(0.1 * sound, 16_000)) > 0.99
    assert similarity(own, encode(np.repeat(sound, 2), 32_000)) > 0.9


def test_similarity_is_a_cosine() -> None:
    assert similarity(np.array([1.0, 0.0], np.float32), np.array([2.0, 0.0], np.float32)) == pytest.approx(1)
    assert similarity(np.array([1.0, 0.0], np.float32), np.array([0.0, 3.0], np.float32)) == pytest.approx(0)


def test_wavlm_is_the_models_embedding(sound: NDArray[np.float32]) -> None:
    model, extractor = tiny_instruments.wavlm()
    vector = WavLMXVector(model, extractor)(sound, 16_000)
    leveled = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)  # what its feature extractor does
    with torch.inference_mode():
        expected = model(torch.from_numpy(leveled)[None]).embeddings[0].numpy()
    assert vector.shape == (12,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-4)


def test_wavlm_from_a_folder_is_the_same(tmp_path: Path, sound: NDArray[np.float32]) -> None:
    model, extractor = tiny_instruments.wavlm()
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    stored = WavLMXVector(tmp_path)(sound, 16_000)
    np.testing.assert_allclose(stored, WavLMXVector(model, extractor)(sound, 16_000), atol=1e-6)


def test_wavlm_repeats_a_sound_that_is_too_short(sound: NDArray[np.float32]) -> None:
    encode = WavLMXVector(*tiny_instruments.wavlm())
    short = sound[:2000]
    np.testing.assert_array_equal(encode(short, 16_000), encode(np.tile(short, 8), 16_000))
    with pytest.raises(ValueError, match="empty"):
        encode(sound[:0], 16_000)


def test_a_ready_wavlm_needs_its_extractor() -> None:
    with pytest.raises(ValueError, match="pass extractor="):
        WavLMXVector(tiny_instruments.wavlm()[0])
