"""Recordings for the tests of the speech systems: no speech, but sound of which codes can be made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from sinusoids import sinusoid


def write(path: Path, seconds: float = 2.0, rate: int = 22_050, level: float = 0.3) -> Path:
    """A file with two channels of different sound."""
    time = np.arange(int(seconds * rate)) / rate
    tone = np.sin(1300 * time) * np.sin(5 * time)
    noise = sinusoid("noise", time.shape).numpy()
    soundfile.write(path, level * np.stack((0.7 * tone + 0.3 * noise, noise), axis=1), rate)
    return path
