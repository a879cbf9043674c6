"""Positions of IndexTTS's language model: learned ones for text and codes, and none of GPT-2's own."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class NoPositions(nn.Module):
    """Stands in for GPT-2's table of positions: adds nothing, to embeddings of any type."""

    def forward(self, positions: Int[Tensor, "batch time"]) -> Float[Tensor, ""]:
        return torch.zeros((), device=positions.device)


class Positions(nn.Module):
    """Learned positions."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(rows, width)

    def forward(self, positions: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        embedded: Tensor = self.emb(positions)
        return embedded
