"""Clips for the documentation: small enough, and of what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from recipes.mini import clips


def test_a_clip_fits(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 20 * 16_000).astype(np.float32)  # noise is the hardest
    clips.write(tmp_path / "audio" / "a.ogg", sound)
    assert (tmp_path / "audio" / "a.ogg").stat().st_size <= clips.BYTES
    assert len(soundfile.read(tmp_path / "audio" / "a.ogg")[0]) == len(sound)
    with pytest.raises(ValueError, match="of at most 100000: 200 s of sound"):
        clips.write(tmp_path / "b.ogg", np.tile(sound, 10))


def test_the_ends_are_of_these_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "kept_in", lambda folder, assets: folder / "abc")
    (tmp_path / "abc").mkdir()
    for attention, level in (("window", 0.1), ("full", 0.2)):
        for speaker, louder in (("alice", 2), ("clara", 1)):
            sound = np.full(100, louder * level, np.float32)
            soundfile.write(tmp_path / "abc" / f"{attention}-{speaker}-10-1.flac", sound, 16_000)
    found = clips.ends(tmp_path, None, "clara")
    assert found["ten_minutes_student"][0] == pytest.approx(0.1, abs=1e-3)
    assert found["ten_minutes_full_attention"][0] == pytest.approx(0.2, abs=1e-3)
    (tmp_path / "abc" / "full-clara-10-1.flac").unlink()
    with pytest.raises(FileNotFoundError, match="no ten minutes by full_attention and clara"):
        clips.ends(tmp_path, None, "clara")
