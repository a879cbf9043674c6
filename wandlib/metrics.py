"""Is it understood, and whose voice is it: word and character error rates, and speaker similarity, offline.

Recognisers map a waveform to text, speaker encoders map it to a unit vector; any callable of that shape can stand in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray


class Recogniser(Protocol):
    """Speech to text."""

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> str:
        """The words in a mono waveform, shape [samples], full scale 1."""


class SpeakerEncoder(Protocol):
    """Speech to a vector that says who speaks."""

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """A unit vector, shape [dims], of a mono waveform, shape [samples]."""


class PocketSphinx:
    """CMU PocketSphinx with its built-in US English model: offline, small, and far worse than a modern recogniser.

    Use it to compare systems with each other on the same sentences, not as an absolute measure.
    """

    RATE = 16_000

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(loglevel="FATAL")

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> str:
        sound = soxr.resample(waveform, sample_rate, self.RATE) if sample_rate != self.RATE else waveform
        peak = float(np.abs(sound).max(initial=0.0))
        if not np.isfinite(peak):
            raise ValueError("the waveform holds NaN or infinite samples")
        # A fixed level, and silence around it, without which first and last words get lost.
        pcm = np.pad(sound * (0.7 / max(peak, 1e-6)) * 32767, 3200).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis is not None else ""


class Resemblyzer:
    """The GE2E speaker encoder (Wan et al., arXiv 1710.10467) as packaged in resemblyzer, weights included."""

    RATE = 16_000

    def __init__(self) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its use of SciPy's old namespaces
            warnings.simplefilter("ignore", UserWarning)  # webrtcvad's use of pkg_resources
            from resemblyzer import VoiceEncoder

        self._encoder = VoiceEncoder("cpu", verbose=False)

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        sound = soxr.resample(waveform, sample_rate, self.RATE) if sample_rate != self.RATE else waveform
        level = float(np.sqrt((sound**2).mean()))
        return self._encoder.embed_utterance(sound * (0.03 / max(level, 1e-6)))


@dataclass(frozen=True)
class ErrorRates:
    """Errors over words or characters of all references together; 0 is perfect, above 1 is possible."""

    wer: float
    cer: float


def normalise(text: str) -> str:
    """Lower-case letters and apostrophes, single spaces."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def error_rates(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRates:
    """Word and character error rates after :func:`normalise`.

    Raises
    ------
    ValueError
        When the two differ in number, or a reference has no words.
    """
    import jiwer

    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    truth, heard = [normalise(text) for text in references], [normalise(text) for text in hypotheses]
    if not all(truth):
        raise ValueError(f"reference {truth.index('')} has no words")
    return ErrorRates(float(jiwer.wer(truth, heard)), float(jiwer.cer(truth, heard)))


def similarity(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """Cosine of the angle between two speaker vectors."""
    return float(np.dot(one, two) / max(float(np.linalg.norm(one) * np.linalg.norm(two)), 1e-9))
