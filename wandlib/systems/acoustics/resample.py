"""Resampling by a windowed sinc, as torchaudio's ``Resample`` does it by default.

Published models were trained on recordings resampled so; another filter moves their codes. For a rate ratio n/o in
lowest terms, sample k of the output lies at time k o / n and is a sum over the input with the weights::

    h(t) = c sinc(c t) cos^2(pi c t / (2 L)),   |c t| < L,   c = 0.99 min(o, n) / o,   L = 6 zero crossings
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

CROSSINGS, ROLLOFF = 6, 0.99
LARGEST_TABLE = 20_000_000
"""Weights, 160 MB. From 44,101 to 24,000 Hz there would be a billion."""
BLOCK = 20_000
"""Samples that are computed at once where there is no table."""


def resample(waveform: Float[Tensor, "batch samples"], rate: int, wanted: int) -> Float[Tensor, "batch resampled"]:
    """Waveform at ``wanted`` Hz, ``ceil(samples * wanted / rate)`` samples."""
    divisor = math.gcd(rate, wanted)
    old, new = rate // divisor, wanted // divisor
    if old == new:
        return waveform
    cutoff = min(old, new) * ROLLOFF
    width = math.ceil(CROSSINGS * old / cutoff)
    if new * (old + 2 * width) > LARGEST_TABLE:
        return _sample_by_sample(waveform, old, new, cutoff, width)
    # One filter for each of the `new` phases of an output sample; double precision, as the phases differ little.
    lag = torch.arange(-width, width + old, dtype=torch.float64)[None] / old
    phase = -torch.arange(new, dtype=torch.float64)[:, None] / new
    filters = _weights((lag + phase) * cutoff) * (cutoff / old)
    padded = F.pad(waveform, (width, width + old))
    phases = F.conv1d(padded[:, None], filters[:, None].to(waveform), stride=old)
    return phases.transpose(1, 2).flatten(1)[:, : math.ceil(new * waveform.shape[-1] / old)]


def _weights(time: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Return the windowed sinc at times in zero crossings."""
    time = time.clamp(-CROSSINGS, CROSSINGS)
    return torch.sinc(time) * (time * torch.pi / CROSSINGS / 2).cos().square()


def _sample_by_sample(
    waveform: Float[Tensor, "batch samples"], old: int, new: int, cutoff: float, width: int
) -> Float[Tensor, "batch resampled"]:
    """Sum for each sample over its own neighbors: of rates without a common divisor no two have the same weights."""
    neighbors = torch.arange(-width, width + 2, device=waveform.device)
    padded, pieces = F.pad(waveform, (width, width + 2)), []
    for numbers in torch.arange(math.ceil(new * waveform.shape[-1] / old), device=waveform.device).split(BLOCK):
        near = (numbers * old // new)[:, None] + neighbors
        time = (near * new - numbers[:, None] * old).double() * (cutoff / (old * new))
        weights = _weights(time) * (cutoff / old)
        pieces.append((padded[:, near + width] * weights.to(waveform)).sum(-1))
    return torch.cat(pieces, -1)
