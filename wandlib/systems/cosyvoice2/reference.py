"""The reference voice: an audio file, checked, as codes, mel spectrogram and speaker vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2.features import ANALYSIS_RATE, SAMPLE_RATE, flow_mel
from wandlib.systems.cosyvoice2.onnx_models import MAXIMUM_SECONDS, SpeakerEncoder, SpeechTokenizer
from wandlib.systems.sound_file import check_finite, open_sound

MINIMUM_SECONDS = 1.0
FRAMES_PER_CODE = 2


@dataclass(frozen=True)
class Reference:
    """A voice to speak in.

    Attributes
    ----------
    codes
        Its speech, as codes.
    mel
        Its spectrogram, two frames a code.
    speaker
        Its speaker vector.
    """

    codes: list[int]
    mel: Float[Tensor, "1 frames bands"]
    speaker: Float[Tensor, "1 features"]

    def to(self, device: torch.device) -> Reference:
        """Return the same reference on another device."""
        return Reference(self.codes, self.mel.to(device), self.speaker.to(device))


def read_audio(path: str | Path) -> tuple[NDArray[np.float32], int]:
    """Return samples, [samples], mono by averaging the channels, and their rate.

    Raises
    ------
    InputError
        As :func:`wandlib.systems.sound_file.open_sound`.
    """
    with open_sound(path, MAXIMUM_SECONDS, wanted="an audio file of 3 to 10 s of one speaker") as file:
        return file.read(dtype="float32", always_2d=True).mean(axis=1), file.samplerate


def check_audio(samples: NDArray[np.float32], rate: int, maximum: float = MAXIMUM_SECONDS) -> None:
    """Raise InputError unless this can be a reference: at least 16 kHz, 1 to 30 s, finite, not silent."""
    seconds = len(samples) / rate
    check_finite(samples)
    if rate < ANALYSIS_RATE:
        raise InputError(f"the reference has {rate:,} samples a second, at least {ANALYSIS_RATE:,} are needed")
    if seconds > maximum:
        raise InputError(
            f"the reference lasts {seconds:.1f} s, the limit is {maximum:g}: keep 3 to 10 s of one speaker, and their "
            "transcript"
        )
    frame = rate // 100
    loudness = np.sqrt((samples[: len(samples) // frame * frame].reshape(-1, frame) ** 2).mean(axis=1))
    loud = float((loudness > max(1e-3, 0.02 * loudness.max(initial=0.0))).sum()) / 100
    if loud < MINIMUM_SECONDS:
        raise InputError(
            f"the reference holds {loud:.2f} s of sound in {seconds:.2f} s: at least {MINIMUM_SECONDS:g} s of speech "
            "is needed, 3 to 10 s is best"
        )


def at(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """Return the samples at another rate."""
    return samples if rate == wanted else soxr.resample(samples, rate, wanted).astype(np.float32)


def encode(samples: NDArray[np.float32], rate: int, tokenizer: SpeechTokenizer, speakers: SpeakerEncoder) -> Reference:
    """Return what the models need of a checked recording; codes and mel frames cut to the same length."""
    analyzed = at(samples, rate, ANALYSIS_RATE)
    codes = tokenizer(analyzed)
    mel = flow_mel(torch.from_numpy(at(samples, rate, SAMPLE_RATE)))
    count = min(len(codes), len(mel) // FRAMES_PER_CODE)
    return Reference(codes[:count], mel[None, : count * FRAMES_PER_CODE], speakers(analyzed))
