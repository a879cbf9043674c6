"""Perceiver resampler: any number of frames to a fixed number of latent vectors.

Learned latents l attend to themselves and the frames x, layer by layer (Jaegle et al., arXiv 2103.03206; resampler of
Flamingo, arXiv 2204.14198)::

    l <- l + attention(l; keys and values from [l | x])
    l <- l + W2 (a * gelu(b)),   [a | b] = W1 l
    output: sqrt(width) * gamma * l / ||l||
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

Latents = Float[Tensor, "batch latents width"]


class UnitNorm(nn.Module):
    """Scale each vector to length sqrt(width), then by a learned gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, vectors: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5 * self.gamma


class LatentAttention(nn.Module):
    """Attention of latents to themselves and to frames."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)

    def forward(
        self,
        latents: Latents,
        frames: Float[Tensor, "batch time width"],
        valid: Bool[Tensor, "batch keys"] | None = None,
    ) -> Latents:
        """Let the latents read frames and latents; ``valid``: which of the two, latents first, may be read."""
        keys, values = self.to_kv(torch.cat((latents, frames), dim=1)).chunk(2, dim=-1)
        query, key, value = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.to_q(latents), keys, values)
        )
        mask = None if valid is None else valid[:, None, None, :]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return out


class GatedGelu(nn.Module):
    """First half of the features times the gelu of the second."""

    def forward(self, features: Float[Tensor, "*batch twice"]) -> Float[Tensor, "*batch once"]:
        value, gate = features.chunk(2, dim=-1)
        return value * F.gelu(gate)


class Layer(nn.ModuleList):
    """Attention and perceptron, each with a residual path; a list, because the checkpoints number the two."""

    def forward(
        self, latents: Latents, frames: Float[Tensor, "batch time width"], valid: Bool[Tensor, "batch keys"] | None
    ) -> Latents:
        attention, perceptron = self
        latents = latents + attention(latents, frames, valid)
        widened: Tensor = latents + perceptron(latents)
        return widened


class PerceiverResampler(nn.Module):
    """Latents that have attended to frames.

    Parameters
    ----------
    width
        Features of a latent.
    context_width
        Features of a frame.
    latents
        Their number.
    heads, head_width, layers
        Of the attention.
    expansion
        The perceptron is ``int(expansion * width * 2 / 3)`` wide.
    """

    def __init__(
        self,
        width: int,
        context_width: int,
        latents: int = 32,
        *,
        heads: int = 8,
        head_width: int = 64,
        layers: int = 2,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        inner = int(width * expansion * 2 / 3)
        self.proj_context = nn.Linear(context_width, width) if context_width != width else nn.Identity()
        self.latents = nn.Parameter(0.02 * torch.randn(latents, width))
        self.layers = nn.ModuleList(
            Layer(
                (
                    LatentAttention(width, heads, head_width),
                    nn.Sequential(nn.Linear(width, 2 * inner), GatedGelu(), nn.Linear(inner, width)),
                )
            )
            for _ in range(layers)
        )
        self.norm = UnitNorm(width)

    def forward(
        self, frames: Float[Tensor, "batch time context"], valid: Bool[Tensor, "batch time"] | None = None
    ) -> Latents:
        """Resample ``frames``; ``valid`` says which of them are no padding."""
        context = self.proj_context(frames)
        latents = self.latents.expand(len(frames), -1, -1)
        if valid is not None:
            valid = F.pad(valid, (latents.shape[1], 0), value=True)
        for layer in self.layers:
            latents = layer(latents, context, valid)
        normalized: Tensor = self.norm(latents)
        return normalized
