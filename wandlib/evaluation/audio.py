"""A waveform in the form that an instrument takes: mono, finite, at the instrument's rate."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray


def at_rate(waveform: NDArray[np.float32], sample_rate: int, wanted: int) -> NDArray[np.float32]:
    """Return the waveform at ``wanted`` Hz, shape [samples].

    Raises
    ------
    ValueError
        When it is not mono, or holds NaN or infinity.
    """
    if waveform.ndim != 1:
        raise ValueError(f"need a mono waveform of shape [samples], got {list(waveform.shape)}: average its channels")
    if not np.isfinite(waveform).all():
        raise ValueError("the waveform holds NaN or infinite samples")
    sound = waveform.astype(np.float32, copy=False)
    return soxr.resample(sound, sample_rate, wanted) if sample_rate != wanted else sound
