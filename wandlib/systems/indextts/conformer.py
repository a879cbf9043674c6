"""Conformer that reads a reference mel spectrum: half the frame rate, attention with relative positions, convolutions.

Gulati et al., arXiv 2005.08100, with attention scores of Transformer-XL (Dai et al., arXiv 1901.02860) that WeNet made
absolute: no shift, so that key j is scored by its own position p_j, and no macaron::

    score_ij = ((q_i + u) . k_j + (q_i + v) . W p_j) / sqrt(d)
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from wandlib.systems.acoustics.feed_forward import FeedForward
from wandlib.systems.base import InputError

KERNEL = 15
MAXIMUM_FRAMES = 5000
"""Rows of the table of positions, after halving the frame rate: 106 s."""

Frames = Float[Tensor, "batch time width"]
Valid = Bool[Tensor, "batch time"]


class Attention(nn.Module):
    """Self-attention whose scores also depend on the key's position."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, width // heads))

    def forward(self, frames: Frames, positions: Float[Tensor, "1 time width"], valid: Valid | None = None) -> Frames:
        query, key, value, place = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (
                self.linear_q(frames),
                self.linear_k(frames),
                self.linear_v(frames),
                self.linear_pos(positions),
            )
        )
        bias = (query + self.pos_bias_v.unsqueeze(1)) @ place.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if valid is not None:
            bias = bias.masked_fill(~valid[:, None, None, :], -torch.inf)
        attended = F.scaled_dot_product_attention(query + self.pos_bias_u.unsqueeze(1), key, value, attn_mask=bias)
        out: Tensor = self.linear_out(attended.transpose(1, 2).flatten(2))
        return out


class Convolution(nn.Module):
    """Gated pointwise, depthwise, norm, swish, pointwise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1)
        self.depthwise_conv = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1)

    def forward(self, frames: Frames, valid: Valid | None = None) -> Frames:
        if valid is not None:
            frames = frames.masked_fill(~valid.unsqueeze(-1), 0.0)
        gated = F.glu(self.pointwise_conv1(frames.transpose(1, 2)), dim=1)
        hidden = F.silu(self.norm(self.depthwise_conv(gated).transpose(1, 2)))
        out: Tensor = self.pointwise_conv2(hidden.transpose(1, 2)).transpose(1, 2)
        return out if valid is None else out.masked_fill(~valid.unsqueeze(-1), 0.0)


class Layer(nn.Module):
    """Attention, convolution, perceptron, each normalized before and added; one norm at the end."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.conv_module = Convolution(width)
        self.feed_forward = FeedForward(width, hidden)
        self.norm_mha, self.norm_conv = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_ff, self.norm_final = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, frames: Frames, positions: Float[Tensor, "1 time width"], valid: Valid | None) -> Frames:
        frames = frames + self.self_attn(self.norm_mha(frames), positions, valid)
        frames = frames + self.conv_module(self.norm_conv(frames), valid)
        out: Tensor = self.norm_final(frames + self.feed_forward(self.norm_ff(frames)))
        return out


class Positions(nn.Module):
    """Table of sines: ``sin(t / 10000^(2i/d))`` and the cosine, side by side."""

    pe: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        time = torch.arange(MAXIMUM_FRAMES).unsqueeze(1)
        angle = time * (torch.arange(0, width, 2) * (-math.log(10_000.0) / width)).exp()
        self.register_buffer("pe", torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[None])

    def forward(self, frames: int) -> Float[Tensor, "1 frames width"]:
        if frames >= MAXIMUM_FRAMES:
            raise InputError(f"the reference has {frames} frames, the limit is {MAXIMUM_FRAMES - 1}: cut it shorter")
        return self.pe[:, :frames]


class Halving(nn.Module):
    """A convolution over time and bands that halves both, then a linear map to ``width`` features."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, width, 3, 2), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(width * ((bands - 1) // 2), width))
        self.pos_enc = Positions(width)

    def forward(self, mel: Float[Tensor, "batch time bands"]) -> Float[Tensor, "batch half width"]:
        halved = self.conv(mel.unsqueeze(1)).transpose(1, 2).flatten(2)
        out: Tensor = self.out(halved)
        return out * math.sqrt(out.shape[-1])


class Conformer(nn.Module):
    """Mel spectra to frames of ``width`` features, ``(time - 1) // 2`` of them.

    Parameters
    ----------
    bands
        Mel bands.
    width, hidden
        Features of a frame, and inside the perceptrons.
    heads, layers
        Of the attention.
    """

    def __init__(self, bands: int, width: int, hidden: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed = Halving(bands, width)
        self.encoders = nn.ModuleList(Layer(width, hidden, heads) for _ in range(layers))
        self.after_norm = nn.LayerNorm(width)

    def forward(
        self, mel: Float[Tensor, "batch time bands"], valid: Valid | None = None
    ) -> tuple[Float[Tensor, "batch half width"], Bool[Tensor, "batch half"] | None]:
        """Frames, and which of them are no padding; ``valid`` says which of the mel frames are none."""
        frames = self.embed(mel)
        positions = self.embed.pos_enc(frames.shape[1])
        halved = None if valid is None else valid[:, 2::2]
        for layer in self.encoders:
            frames = layer(frames, positions, halved)
        return self.after_norm(frames), halved
