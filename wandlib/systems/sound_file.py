"""Reference recordings: what a header may say, checked before anything is decoded, and samples as they lie on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float64
from numpy import ndarray
from numpy.typing import NDArray

from wandlib.systems.settings import InputError

MAXIMUM_SECONDS = 60.0
MAXIMUM_BYTES = 50_000_000
MINIMUM_RATE, MAXIMUM_RATE = 4_000, 192_000
"""Hz."""
MAXIMUM_CHANNELS = 8
MAXIMUM_SAMPLES = 25_000_000
"""Of all channels together: a minute of stereo at the highest rate, or of eight channels at 48 kHz, has 23 million."""
UNKNOWN_FRAMES = 2**62
"""What libsndfile says where a file does not tell."""
MINIMUM_SECONDS = 0.5
QUIETEST_PEAK = 1e-3
"""Full scale is 1; below it there is nothing but noise."""
LOUDEST_PEAK = 1e3
"""Floating point may pass full scale; beyond this it is something else, such as 16-bit numbers that were not scaled."""


@contextmanager
def open_sound(
    path: str | Path, maximum_seconds: float = MAXIMUM_SECONDS, *, wanted: str = "an audio file of one speaker"
) -> Iterator[soundfile.SoundFile]:
    """Open a recording that can be decoded within bounds.

    Parameters
    ----------
    wanted
        What should be given in place of a file that is not there.

    Raises
    ------
    InputError
        If there is no such file, or it is too large, no audio, or of too many channels, samples a second or seconds.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"a recording is given as the path of a file, not as {type(path).__name__}: give {wanted}")
    target = Path(path)
    if not is_file(target):
        raise InputError(f"no reference file {target.name!r}: give {wanted}")
    size = target.stat().st_size
    if size > MAXIMUM_BYTES:
        raise InputError(
            f"{target.name!r} has {size / 1e6:.0f} MB, the limit is {MAXIMUM_BYTES // 1_000_000}: cut it shorter"
        )
    try:
        file = soundfile.SoundFile(target)
    # Of a .raw, soundfile wants to be told the rate.
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        raise _unreadable(target, error) from error
    with file:
        if not file.seekable() or file.frames >= UNKNOWN_FRAMES:
            raise InputError(f"{target.name!r} does not say how long it is: save it again, as WAV for example")
        check_header(file.samplerate, file.channels, file.frames, maximum_seconds)
        try:
            yield file
        except soundfile.LibsndfileError as error:
            raise _unreadable(target, error) from error


def is_file(path: Path) -> bool:
    """Return whether there is such a file; not for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _unreadable(target: Path, error: Exception) -> InputError:
    reason = getattr(error, "error_string", error)
    return InputError(f"{target.name!r} is not audio that can be read ({reason}): use WAV, FLAC, OGG or MP3")


def check_header(rate: int, channels: int, frames: int, maximum_seconds: float = MAXIMUM_SECONDS) -> None:
    """Refuse what would take too long or too much memory to decode.

    Raises
    ------
    InputError
        Naming the limit that is exceeded.
    """
    if not MINIMUM_RATE <= rate <= MAXIMUM_RATE:
        raise InputError(f"the reference has {rate:,} samples a second: export it at 8 to 48 kHz")
    if channels > MAXIMUM_CHANNELS:
        raise InputError(f"the reference has {channels} channels, the limit is {MAXIMUM_CHANNELS}: export it as mono")
    if frames > maximum_seconds * rate:
        raise InputError(
            f"the reference lasts {frames / rate:.0f} s, the limit is {maximum_seconds:.0f}: "
            "keep a few seconds of one speaker"
        )
    if frames * channels > MAXIMUM_SAMPLES:
        raise InputError(
            f"the reference has {frames * channels / 1e6:.0f} million samples in {channels} channels, the limit is "
            f"{MAXIMUM_SAMPLES // 1_000_000} million: export it as mono at 8 to 48 kHz"
        )


def check_finite(samples: NDArray[Any]) -> None:
    """Refuse NaN, infinity and numbers that are no sound."""
    if not np.isfinite(samples).all():
        raise InputError("the reference holds NaN or infinite samples: export it again as 16-bit audio")
    if (loudest := np.abs(samples).max(initial=0.0)) > LOUDEST_PEAK:
        raise InputError(f"the reference has samples up to {loudest:.3g}, full scale is 1: export it as 16-bit audio")


def read_sound(path: str | Path, maximum_seconds: float) -> tuple[Float64[ndarray, "samples channels"], int]:
    """Return samples of an audio file in [-1, 1], every channel, and its rate in Hz.

    Raises
    ------
    InputError
        As :func:`open_sound`, and if it is too short, silent, or holds NaN or infinity.
    """
    with open_sound(path, maximum_seconds) as file:
        rate, samples = file.samplerate, file.read(dtype="float64", always_2d=True)
    check_finite(samples)
    if len(samples) < MINIMUM_SECONDS * rate:
        raise InputError(
            f"the reference lasts {len(samples) / rate:.2f} s: at least {MINIMUM_SECONDS} s of speech is needed, "
            "3 to 10 s is best"
        )
    if np.abs(samples).max() < QUIETEST_PEAK:
        raise InputError("the reference is silent, or its channels cancel each other: choose a few seconds of speech")
    return samples, rate
