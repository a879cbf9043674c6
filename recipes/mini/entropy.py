"""The rate of the codes: how many nats each costs one who knows the speaker, the phones, and the codes before it.

A codec trained on the error of its spectra alone fills its codes with whatever lowers that error, were it noise,
and a language model then spends most of its training on what cannot be predicted. Counted beside the error (rate and
distortion, Ballé et al., arXiv 1611.01704), nats are spent only where they can be heard. The entropy model is as small
as can be: it is trained with the codec, and left behind with it. The teacher, which knows more, needs fewer nats.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from wandlib.systems.mini.codec import LEVELS, FiniteScalarQuantizer
from wandlib.systems.mini.text import SYMBOLS

AROUND = (-1, 0, 1, 2, 3)
"""Symbols that are known: the one being spoken, one before it and three after it."""
AGES = 16
"""How long a symbol has been spoken, in codes; longer counts as this."""
PAST = 4
"""Codes before a code that are known."""
SAID = len(AROUND) + 1
NARROWEST = 0.05
"""Least scale of a prediction, in levels."""
LEAST = 1e-6
"""Least probability."""


def said_of(symbols: Sequence[int], positions: NDArray[np.int16]) -> NDArray[np.int64]:
    """Return what is said at each code, [codes, 6]: the symbols around (0: none), and for how long this one has been.

    Parameters
    ----------
    symbols
        Numbers of the text's symbols.
    positions
        For each code, the position of the symbol being spoken; empty where that is unknown.
    """
    places = positions.astype(np.int64)
    padded = np.pad(np.asarray(symbols, np.int64) + 1, (-AROUND[0], AROUND[-1]))
    around = [padded[places + offset - AROUND[0]] for offset in AROUND]
    numbers = np.arange(len(places))
    begins = np.diff(places, prepend=-1) != 0
    age = numbers - np.maximum.accumulate(np.where(begins, numbers, 0))
    return np.stack([*around, age.clip(max=AGES - 1)], axis=1)


class EntropyModel(nn.Module):
    """A logistic distribution over the levels of each digit of a code."""

    def __init__(self, speaker_dims: int, width: int = 256) -> None:
        super().__init__()
        self.reach: Tensor
        self.register_buffer("reach", FiniteScalarQuantizer().reach, persistent=False)
        self.symbols = nn.Embedding(len(SYMBOLS) + 1, 48)
        self.age = nn.Embedding(AGES, 16)
        known = 48 * len(AROUND) + 16 + PAST * len(LEVELS) + speaker_dims
        self.layers = nn.Sequential(
            nn.Linear(known, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 2 * len(LEVELS))
        )

    def forward(
        self,
        quantized: Float[Tensor, "batch codes 5"],
        said: Int[Tensor, "batch codes 6"],
        speaker: Float[Tensor, "batch dims"],
    ) -> Float[Tensor, "batch codes"]:
        """Return the rate of each code: its negative log-likelihood in nats, with gradients for the codes too."""
        before = nn.functional.pad(quantized, (0, 0, PAST, 0))
        past = before[:, :-1].unfold(1, PAST, 1).flatten(2)
        who = speaker.detach().unsqueeze(1).expand(-1, said.shape[1], -1)
        known = (self.symbols(said[..., :-1]).flatten(2), self.age(said[..., -1]), past, who)
        middle, scale = self.layers(torch.cat(known, dim=-1)).float().chunk(2, dim=-1)
        scale = nn.functional.softplus(scale) + NARROWEST
        level = quantized * self.reach
        above, below = ((level + half - middle) / scale for half in (0.5, -0.5))
        # The outermost levels have all that lies beyond them.
        most = torch.where(level > self.reach - 0.5, 1.0, above.sigmoid())
        probability = most - torch.where(level < 0.5 - self.reach, 0.0, below.sigmoid())
        return -probability.clamp_min(LEAST).log().sum(-1)
