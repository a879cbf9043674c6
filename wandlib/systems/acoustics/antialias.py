"""Activations without aliasing: upsample by 2, apply the nonlinearity, low-pass, take every second sample.

A nonlinearity makes frequencies that the sampling rate cannot hold; at twice the rate most of them can be filtered out
again (Karras et al., arXiv 2106.12423; BigVGAN, arXiv 2206.04658). Both filters are Kaiser-windowed sincs of 12 taps::

    h[n] = 2 c w[n] sinc(2 c t_n),   c = 0.25,   normalized to sum 1
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

RATIO, TAPS = 2, 12
HALF_WIDTH = 0.6 / RATIO
"""Of the transition band, in cycles a sample."""

Signal = Float[Tensor, "batch channels time"]


def kaiser_beta(taps: int, half_width: float) -> float:
    """Shape of the Kaiser window for a transition band, by Kaiser's two formulas for the attenuation A in dB."""
    attenuation = 2.285 * (taps // 2 - 1) * torch.pi * 4 * half_width + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation >= 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def low_pass(cutoff: float = 0.5 / RATIO) -> Float[Tensor, "1 1 taps"]:
    """Return the filter; ``cutoff`` in cycles a sample."""
    window = torch.kaiser_window(TAPS, periodic=False, beta=kaiser_beta(TAPS, HALF_WIDTH))
    time = torch.arange(-(TAPS // 2), TAPS // 2) + 0.5
    taps = 2 * cutoff * window * torch.sinc(2 * cutoff * time)
    return (taps / taps.sum()).view(1, 1, -1)


class Upsample(nn.Module):
    """Twice as many samples."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", low_pass())

    def forward(self, signal: Signal) -> Float[Tensor, "batch channels twice"]:
        channels, margin = signal.shape[1], TAPS // RATIO - 1
        padded = F.pad(signal, (margin, margin), mode="replicate")
        upsampled = F.conv_transpose1d(padded, self.filter.expand(channels, -1, -1), stride=RATIO, groups=channels)
        cut = margin * RATIO + (TAPS - RATIO) // 2
        return RATIO * upsampled[..., cut:-cut]


class LowPass(nn.Module):
    """Filter, and every second sample."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", low_pass())

    def forward(self, signal: Float[Tensor, "batch channels twice"]) -> Signal:
        channels = signal.shape[1]
        padded = F.pad(signal, (TAPS // 2 - 1, TAPS // 2), mode="replicate")
        return F.conv1d(padded, self.filter.expand(channels, -1, -1), stride=RATIO, groups=channels)


class Downsample(nn.Module):
    """Half as many samples."""

    def __init__(self) -> None:
        super().__init__()
        self.lowpass = LowPass()

    def forward(self, signal: Float[Tensor, "batch channels twice"]) -> Signal:
        halved: Tensor = self.lowpass(signal)
        return halved


class AntiAliased(nn.Module):
    """An activation at twice the rate."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.act = activation
        self.upsample = Upsample()
        self.downsample = Downsample()

    def forward(self, signal: Signal) -> Signal:
        halved: Tensor = self.downsample(self.act(self.upsample(signal)))
        return halved
