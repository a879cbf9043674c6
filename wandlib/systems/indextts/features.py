"""A reference recording as IndexTTS takes it: mean of the channels, 24 kHz, logarithm of 100 mel magnitudes."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wandlib.systems.acoustics.mel import MelSpectrogram
from wandlib.systems.acoustics.resample import resample
from wandlib.systems.sound_file import read_sound

SAMPLE_RATE = 24_000
FFT, HOP, BANDS = 1024, 256, 100
FLOOR = 1e-7
MAXIMUM_SECONDS = 60.0


class LogMel(nn.Module):
    """Waveform at 24 kHz to log-mel frames, 94 a second."""

    def __init__(self) -> None:
        super().__init__()
        self.mel = MelSpectrogram(SAMPLE_RATE, FFT, FFT, HOP, BANDS)

    def forward(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch bands frames"]:
        magnitudes: Tensor = self.mel(waveform)
        return magnitudes.clamp_min(FLOOR).log()


def read_reference(path: str | Path) -> Float[Tensor, "1 samples"]:
    """Return a recording at 24 kHz; InputError as :func:`wandlib.systems.sound_file.read_sound`."""
    samples, rate = read_sound(path, MAXIMUM_SECONDS)
    return resample(torch.from_numpy(samples.mean(axis=1)).float()[None], rate, SAMPLE_RATE)
