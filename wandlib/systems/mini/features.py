"""Log-mel spectra: what the codec reads and writes, and what the vocoder turns into sound.

100 frames a second, 80 bands; four frames make one code (25 Hz). Magnitudes, natural logarithm, then centered and
scaled by two constants measured once on the training corpus.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

SAMPLE_RATE = 16_000
HOP = 160
FFT = 1024
WINDOW = 800
BANDS = 80
FRAMES_PER_CODE = 4
SAMPLES_PER_CODE = HOP * FRAMES_PER_CODE
CODES_PER_SECOND = SAMPLE_RATE / SAMPLES_PER_CODE
FLOOR = 1e-4
MEAN, SCALE = -5.8, 2.1


class LogMel(nn.Module):
    """Waveform to normalized log-mel spectra, 100 frames a second.

    The waveform is padded with silence to whole codes, so that frames = 4 x codes.
    """

    def __init__(self) -> None:
        super().__init__()
        filters = mel_filter_bank(
            FFT // 2 + 1, BANDS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.filters: Tensor
        self.taper: Tensor
        self.register_buffer("filters", torch.tensor(filters, dtype=torch.float32).T, persistent=False)
        self.register_buffer("taper", torch.hann_window(WINDOW), persistent=False)

    def forward(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames 80"]:
        length = -(-waveform.shape[-1] // SAMPLES_PER_CODE) * SAMPLES_PER_CODE
        margin = (FFT - HOP) // 2
        padded = nn.functional.pad(waveform, (margin, length - waveform.shape[-1] + FFT - HOP - margin))
        spectrum = torch.stft(padded, FFT, HOP, WINDOW, self.taper, center=False, return_complex=True).abs()
        mel = self.filters @ spectrum
        return ((mel.clamp_min(FLOOR).log() - MEAN) / SCALE).transpose(1, 2)
