"""The reference voice: an audio file of any rate, checked, resampled, trimmed and leveled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from wandlib.systems.base import InputError
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.sound_file import QUIETEST_PEAK, check_finite, check_header, open_sound

MINIMUM_SECONDS = 1.0
BLOCK = 65_536
"""Frames that are decoded at once, so that memory grows with the sound at 16 kHz alone."""
LEVEL = 0.06
"""Root mean square of a reference and of every utterance of the training corpus, full scale 1."""


def read_reference(path: str | Path) -> NDArray[np.float32]:
    """Read a voice from a file, mono at 16 kHz, shape [samples].

    Raises
    ------
    InputError
        When there is no such file, it is too large, not audio, of too many channels or samples a second, too short, too
        long, silent, or holds NaN or infinity. What the header shows is refused before anything is decoded.
    """
    with open_sound(path, wanted="an audio file or the name of a built-in speaker") as file:
        samples = np.concatenate([np.zeros(0), *mono_blocks(file)])
    return clean_reference(samples, SAMPLE_RATE)


def mono_blocks(file: soundfile.SoundFile) -> Iterator[NDArray[np.float64]]:
    """Return the mean of all channels at 16 kHz, a block at a time.

    Raises
    ------
    InputError
        When a block holds NaN or infinity.
    """
    # In 64 bits: the square of what a 32-bit file may hold has no room in 32.
    resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float64")
    for block in file.blocks(BLOCK, dtype="float32", always_2d=True):
        check_finite(block)
        yield resampler.resample_chunk(block.mean(axis=1, dtype=np.float64))
    yield resampler.resample_chunk(np.zeros(0), last=True)


def clean_reference(samples: NDArray[np.floating], rate: int) -> NDArray[np.float32]:
    """Check, resample to 16 kHz, cut the silence at both ends, set the level; shape [samples].

    Raises
    ------
    InputError
        When it is too short, silent, of a strange rate, or holds NaN or infinity.
    """
    check_finite(samples)
    if len(samples) < MINIMUM_SECONDS * rate:
        raise InputError(
            f"the reference lasts {len(samples) / rate:.2f} s: at least {MINIMUM_SECONDS:.0f} s of speech is needed, "
            "3 to 10 s is best"
        )
    check_header(rate, 1, len(samples))
    peak = float(np.abs(samples).max())
    if peak < QUIETEST_PEAK:
        raise InputError("the reference is silent, or its channels cancel each other: choose a few seconds of speech")
    scaled = (samples / peak).astype(np.float32)
    mono = soxr.resample(scaled, rate, SAMPLE_RATE) if rate != SAMPLE_RATE else scaled
    trimmed = without_silence(mono)
    if len(trimmed) < MINIMUM_SECONDS * SAMPLE_RATE:
        raise InputError(
            f"the reference holds only {len(trimmed) / SAMPLE_RATE:.2f} s of sound: "
            f"at least {MINIMUM_SECONDS:.0f} s of speech is needed"
        )
    return leveled(trimmed)


def without_silence(samples: NDArray[np.float32], rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """Return the samples with the silence at both ends, 34 dB below the loudest 10 ms, cut to 80 ms."""
    return samples[spoken_part(samples, rate)]


def spoken_part(samples: NDArray[np.float32], rate: int) -> slice:
    """Return which samples :func:`without_silence` keeps."""
    hop = rate // 100
    loud = loud_part(np.sqrt((samples[: len(samples) // hop * hop].reshape(-1, hop) ** 2).mean(axis=1)))
    return slice(loud.start * hop, loud.stop * hop)


def loud_part(loudness: NDArray[np.floating]) -> slice:
    """Return the same in frames, by the root mean square of each 10 ms."""
    loud = np.flatnonzero(loudness > 0.02 * loudness.max(initial=0.0))
    return slice(max(0, int(loud[0]) - 8), int(loud[-1]) + 1 + 8) if len(loud) else slice(0, 0)


def leveled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the samples at the root mean square ``LEVEL``."""
    return (samples * (LEVEL / np.sqrt((samples**2).mean()))).astype(np.float32)
