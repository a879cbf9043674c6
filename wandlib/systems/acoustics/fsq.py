"""Finite scalar quantization: each of a few dimensions is rounded to one of L levels, and the levels are the digits.

Mentzer et al., arXiv 2309.15505. With L levels, b(z) bounded so that rounding gives L values::

    b(z) = (L - 1)(1 + eps) / 2 * tanh(z + s) - o,   o = 1/2 for even L, else 0,   s = atanh(o / ((L - 1)(1 + eps) / 2))
    index = sum_d (round(b(z_d)) + L_d // 2) prod_{e < d} L_e
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

EPSILON = 1e-3


class FiniteScalarQuantizer(nn.Module):
    """Vectors to indices and back, with a linear map on each side.

    Parameters
    ----------
    width
        Features of a vector.
    levels
        Levels of each quantized dimension; there are ``prod(levels)`` indices.
    """

    def __init__(self, width: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.project_in = nn.Linear(width, len(levels))
        self.project_out = nn.Linear(len(levels), width)
        self.levels = tuple(levels)

    @property
    def size(self) -> int:
        """Number of indices."""
        return math.prod(self.levels)

    def encode(self, vectors: Float[Tensor, "batch time width"]) -> Int[Tensor, "batch time"]:
        """Index of each vector. Computed in fp32: a rounding error here is another index."""
        latents = self.project_in(vectors).float()
        levels, basis = self._digits(latents.device)
        half = (levels - 1) * (1 + EPSILON) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        digits = ((latents + (offset / half).atanh()).tanh() * half - offset).round() + levels // 2
        return (digits.long() * basis).sum(-1)

    def decode(self, indices: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time width"]:
        """Vector of each index."""
        levels, basis = self._digits(indices.device)
        middle = levels // 2
        digits = indices.unsqueeze(-1) // basis % levels
        vectors: Tensor = self.project_out(((digits - middle) / middle).to(self.project_out.weight.dtype))
        return vectors

    def _digits(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Levels and place value of each digit."""
        levels = torch.tensor(self.levels, device=device)
        return levels, levels.cumprod(0) // levels
