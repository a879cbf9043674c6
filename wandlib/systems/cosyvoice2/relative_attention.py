"""Self-attention with relative positions, as in Transformer-XL.

A query at i sees a key at j by what both hold and by how far they are apart::

    score(i, j) = ((q_i + u) . k_j + (q_i + v) . W p(i - j)) / sqrt(d)

p(distance) is the sinusoidal embedding of a signed distance; u and v are learned, one pair for each head.

Source: Dai et al., arXiv 1901.02860, section 3.3; CosyVoice's Conformer encoder has it in ten layers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


def distance_embedding(
    length: int, features: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "distances features"]:
    """Return p(length - 1), ..., p(0), ..., p(1 - length): sines in the even features, cosines in the odd ones."""
    distances = torch.arange(length - 1, -length, -1, device=device, dtype=torch.float32)
    rates = torch.exp(torch.arange(0, features, 2, device=device) * (-math.log(10_000.0) / features))
    angles = distances[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2).to(dtype)


class RelativeAttention(nn.Module):
    """Multi-head self-attention with relative positions.

    Parameters
    ----------
    features
        Of each position.
    heads
        Heads; they share the features out evenly.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, features // heads
        self.linear_q, self.linear_k = nn.Linear(features, features), nn.Linear(features, features)
        self.linear_v, self.linear_out = nn.Linear(features, features), nn.Linear(features, features)
        self.linear_pos = nn.Linear(features, features, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, self.head_size))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, self.head_size))

    def forward(
        self,
        x: Float[Tensor, "batch time features"],
        distances: Float[Tensor, "distances features"],
        visible: Bool[Tensor, "time time"] | None = None,
    ) -> Float[Tensor, "batch time features"]:
        """Attend.

        Parameters
        ----------
        x
            What to attend from and to.
        distances
            :func:`distance_embedding` of the length of ``x``.
        visible
            Which key (column) a query (row) may see; None: all.
        """
        length = x.shape[1]
        query, key, value = (self.split(linear(x)) for linear in (self.linear_q, self.linear_k, self.linear_v))
        apart = self.split(self.linear_pos(distances)[None])
        by_distance = (query + self.pos_bias_v[:, None]) @ apart.transpose(-2, -1)  # [batch, heads, time, distances]
        positions = torch.arange(length, device=x.device)
        column = length - 1 - positions[:, None] + positions  # where the distance i - j is kept
        bias = by_distance.gather(-1, column.expand(*by_distance.shape[:2], length, length)) / math.sqrt(self.head_size)
        if visible is not None:
            bias = bias.masked_fill(~visible, -torch.inf)
        mixed = F.scaled_dot_product_attention(query + self.pos_bias_u[:, None], key, value, attn_mask=bias)
        return self.linear_out(mixed.transpose(1, 2).flatten(-2))

    def split(self, x: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch heads time size"]:
        """Return the features of each head."""
        return x.unflatten(-1, (self.heads, self.head_size)).transpose(1, 2)
