"""Mel magnitude spectra, centered frames with reflected ends, as torchaudio's MelSpectrogram(power=1) makes them.

``mel = filters |STFT(x)|``; the logarithm, its floor and its base differ from system to system and are theirs.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank


class MelSpectrogram(nn.Module):
    """Waveform to mel magnitudes, ``1 + samples // hop`` frames.

    Parameters
    ----------
    sample_rate, low, high
        In Hz; ``high`` None: half of the sample rate.
    fft, window, hop
        In samples.
    bands
        Number of filters.
    scale
        "htk" filters have height 1, "slaney" filters area 1.
    """

    filters: Tensor
    taper: Tensor

    def __init__(
        self,
        sample_rate: int,
        fft: int,
        window: int,
        hop: int,
        bands: int,
        *,
        low: float = 0.0,
        high: float | None = None,
        scale: Literal["htk", "slaney"] = "htk",
    ) -> None:
        super().__init__()
        self.fft, self.window, self.hop = fft, window, hop
        filters = mel_filter_bank(
            fft // 2 + 1,
            bands,
            float(low),
            sample_rate / 2 if high is None else float(high),
            sample_rate,
            norm="slaney" if scale == "slaney" else None,
            mel_scale=scale,
        )
        self.register_buffer("filters", torch.tensor(filters.T, dtype=torch.float32), persistent=False)
        self.register_buffer("taper", torch.hann_window(window), persistent=False)

    def forward(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch bands frames"]:
        """Mel magnitudes.

        Raises
        ------
        ValueError
            If the waveform is no longer than the margin that is reflected at each end.
        """
        if waveform.shape[-1] <= self.fft // 2:
            raise ValueError(f"a mel spectrum needs more than {self.fft // 2} samples, got {waveform.shape[-1]}")
        spectrum = torch.stft(
            waveform, self.fft, self.hop, self.window, self.taper, center=True, pad_mode="reflect", return_complex=True
        )
        return self.filters @ spectrum.abs()
