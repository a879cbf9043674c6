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


def resample(waveform: Float[Tensor, "batch samples"], rate: int, wanted: int) -> Float[Tensor, "batch resampled"]:
    """Waveform at ``wanted`` Hz, ``ceil(samples * wanted / rate)`` samples."""
    divisor = math.gcd(rate, wanted)
    old, new = rate // divisor, wanted // divisor
    if old == new:
        return waveform
    cutoff = min(old, new) * ROLLOFF
    width = math.ceil(CROSSINGS * old / cutoff)
    # One filter for each of the `new` phases of an output sample; double precision, as the phases differ little.
    lag = torch.arange(-width, width + old, dtype=torch.float64)[None] / old
    phase = -torch.arange(new, dtype=torch.float64)[:, None] / new
    time = ((lag + phase) * cutoff).clamp(-CROSSINGS, CROSSINGS)
    filters = torch.sinc(time) * (time * torch.pi / CROSSINGS / 2).cos().square() * (cutoff / old)
    padded = F.pad(waveform, (width, width + old))
    phases = F.conv1d(padded[:, None], filters[:, None].to(waveform), stride=old)
    return phases.transpose(1, 2).flatten(1)[:, : math.ceil(new * waveform.shape[-1] / old)]
