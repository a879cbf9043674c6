"""Reference recordings as they lie on disk: every channel, at the file's own rate, checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float64
from numpy import ndarray

from wandlib.systems.base import InputError

MINIMUM_SECONDS = 0.5
QUIETEST_PEAK = 1e-3
"""Full scale is 1; below it there is nothing but noise."""


def read_sound(path: str | Path, maximum_seconds: float) -> tuple[Float64[ndarray, "samples channels"], int]:
    """Return samples of an audio file in [-1, 1], and its rate in Hz.

    Raises
    ------
    InputError
        If there is no such file, if it is no audio, too short, longer than ``maximum_seconds``, silent, or holds NaN
        or infinity.
    """
    target = Path(path)
    if not target.is_file():
        raise InputError(f"no reference file {str(path)!r}: give an audio file of one speaker")
    try:
        with soundfile.SoundFile(target) as file:
            rate, seconds = file.samplerate, file.frames / file.samplerate
            if seconds > maximum_seconds:
                raise InputError(
                    f"the reference lasts {seconds:.0f} s, the limit is {maximum_seconds:.0f}: keep a few seconds"
                )
            samples = file.read(dtype="float64", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{target.name!r} is not audio that can be read ({error.error_string}): use WAV, FLAC, OGG or MP3"
        ) from error
    if not np.isfinite(samples).all():
        raise InputError("the reference holds NaN or infinite samples: export it again as 16-bit audio")
    if len(samples) < MINIMUM_SECONDS * rate:
        raise InputError(
            f"the reference lasts {len(samples) / rate:.2f} s: at least {MINIMUM_SECONDS} s of speech is needed, "
            "3 to 10 s is best"
        )
    if np.abs(samples).max() < QUIETEST_PEAK:
        raise InputError("the reference is silent: record or choose a few seconds of speech")
    return samples, rate
