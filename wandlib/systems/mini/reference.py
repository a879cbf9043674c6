"""The reference voice: an audio file of any rate, checked, resampled, trimmed and levelled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from wandlib.systems.base import InputError
from wandlib.systems.mini.features import SAMPLE_RATE

MINIMUM_SECONDS, MAXIMUM_SECONDS = 1.0, 60.0
MAXIMUM_BYTES = 50_000_000
LEVEL = 0.06
"""Root mean square of a reference and of every utterance of the training corpus, full scale 1."""


def read_reference(path: str | Path) -> NDArray[np.float32]:
    """A voice from a file, mono at 16 kHz, shape [samples].

    Raises
    ------
    InputError
        When there is no such file, it is too large, not audio, too short, too long, silent, or holds NaN or infinity.
    """
    target = Path(path)
    if not target.is_file():
        raise InputError(f"no reference file {target.name!r}: give an audio file or the name of a built-in speaker")
    size = target.stat().st_size
    if size > MAXIMUM_BYTES:
        raise InputError(
            f"{target.name!r} has {size / 1e6:.0f} MB, the limit is {MAXIMUM_BYTES // 1_000_000}: cut it shorter"
        )
    try:
        with soundfile.SoundFile(target) as file:
            seconds = file.frames / file.samplerate
            if seconds > MAXIMUM_SECONDS:
                raise InputError(
                    f"the reference lasts {seconds:.0f} s, the limit is {MAXIMUM_SECONDS:.0f}: "
                    "keep a few seconds of one speaker"
                )
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{target.name!r} is not audio that can be read ({error.error_string}): use WAV, FLAC, OGG or MP3"
        ) from error
    return clean_reference(samples.mean(axis=1), rate)


def clean_reference(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Check, resample to 16 kHz, cut the silence at both ends, set the level; shape [samples].

    Raises
    ------
    InputError
        When it is too short, silent, or holds NaN or infinity.
    """
    if not np.isfinite(samples).all():
        raise InputError("the reference holds NaN or infinite samples: export it again as 16-bit audio")
    if len(samples) < MINIMUM_SECONDS * rate:
        raise InputError(
            f"the reference lasts {len(samples) / rate:.2f} s: at least {MINIMUM_SECONDS:.0f} s of speech is needed, "
            "3 to 10 s is best"
        )
    if not 4_000 <= rate <= 384_000:
        raise InputError(f"the reference has {rate:,} samples a second: export it at 8 to 48 kHz")
    peak = np.abs(samples).max()
    if peak < 1e-3:
        raise InputError("the reference is silent: record or choose a few seconds of speech")
    mono = soxr.resample(samples / peak, rate, SAMPLE_RATE) if rate != SAMPLE_RATE else samples / peak
    trimmed = without_silence(mono)
    if len(trimmed) < MINIMUM_SECONDS * SAMPLE_RATE:
        raise InputError(
            f"the reference holds only {len(trimmed) / SAMPLE_RATE:.2f} s of sound: "
            f"at least {MINIMUM_SECONDS:.0f} s of speech is needed"
        )
    return levelled(trimmed)


def without_silence(samples: NDArray[np.float32], rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """The samples with the silence at both ends, 34 dB below the loudest 10 ms, cut down to 80 ms."""
    hop = rate // 100
    loudness = np.sqrt((samples[: len(samples) // hop * hop].reshape(-1, hop) ** 2).mean(axis=1))
    loud = np.flatnonzero(loudness > 0.02 * loudness.max(initial=0.0))
    if not len(loud):
        return samples[:0]
    return samples[max(0, loud[0] - 8) * hop : (loud[-1] + 1 + 8) * hop]


def levelled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples at the root mean square ``LEVEL``."""
    return (samples * (LEVEL / np.sqrt((samples**2).mean()))).astype(np.float32)
