"""A few seconds of noise with texts, in the layout of LibriTTS: two speakers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def record(path: Path, seconds: float, seed: int, rate: int = 16_000) -> Path:
    """Write noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate))
    soundfile.write(path, samples.astype(np.float32), rate)
    return path


def write(root: Path, count: int = 7, seconds: float = 1.0) -> Path:
    """Write ``count`` utterances, each 0.2 s longer than the one before."""
    for number in range(count):
        speaker = str(number % 2)
        stem = root / "train-clean-100" / speaker / "5" / f"{speaker}_5_{number}"
        record(stem.with_suffix(".wav"), seconds + 0.2 * number, number)
        stem.with_name(stem.name + ".normalized.txt").write_text(f"Words number {'one ' * number}.\n")
    return root
