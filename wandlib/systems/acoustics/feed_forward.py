"""The perceptron of a conformer's layer, with the published names of its weights."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Two linear layers with SiLU in between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, frames: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        out: Tensor = self.w_2(F.silu(self.w_1(frames)))
        return out
