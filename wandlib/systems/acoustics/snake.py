"""Periodic activations: x + sin^2(a x) / b, with one frequency a and one size b for each channel.

Ziyin et al., arXiv 2006.08195 (b = a); BigVGAN's two-parameter form, arXiv 2206.04658, stores both as logarithms.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-9

Signal = Float[Tensor, "batch channels time"]


class Snake(nn.Module):
    """Snake with one parameter a channel: ``x + sin^2(alpha x) / alpha``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, signal: Signal) -> Signal:
        return signal + (self.alpha + EPSILON).reciprocal() * (self.alpha * signal).sin().square()


class SnakeBeta(nn.Module):
    """Snake with two parameters a channel, stored as logarithms: ``x + sin^2(e^alpha x) / e^beta``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, signal: Signal) -> Signal:
        frequency, size = self.alpha.exp().unsqueeze(-1), self.beta.exp().unsqueeze(-1)
        return signal + (size + EPSILON).reciprocal() * (frequency * signal).sin().square()
