"""The network of the flow: the velocity of a noisy mel spectrogram, given time, features, speaker and prompt.

A causal one-dimensional U-Net of one level: a residual convolution block and attention blocks on the way down, twelve
times in the middle, and on the way up beside the way down. All convolutions look to the left only; attention sees
everything, or, while streaming, its own block of ``chunk`` frames and all before it.

Source: Matcha-TTS, arXiv 2309.03199, section 3.2, made causal by CosyVoice 2, arXiv 2412.10117; names of the
published ``flow.pt``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wandlib.systems.cosyvoice2.encoder import block_mask


def time_embedding(times: Float[Tensor, " batch"], features: int) -> Float[Tensor, "batch features"]:
    """Return sines, then cosines, of 1000 t at rates from 1 down to 1/10,000."""
    rates = torch.exp(torch.arange(features // 2, device=times.device) * (-math.log(10_000.0) / (features // 2 - 1)))
    angles = 1000.0 * times[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), -1)


class TimeNetwork(nn.Module):
    """Two linear layers with SiLU in between."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, features), nn.Linear(features, features)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch features"]:
        return self.linear_2(F.silu(self.linear_1(x)))


class CausalConv(nn.Conv1d):
    """A convolution of kernel 3 that sees a position and the two before it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)

    def forward(self, x: Float[Tensor, "batch inputs time"]) -> Float[Tensor, "batch outputs time"]:
        return super().forward(F.pad(x, (2, 0)))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [batch, channels, time]."""

    def forward(self, x: Float[Tensor, "batch channels time"]) -> Float[Tensor, "batch channels time"]:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ConvBlock(nn.Module):
    """Causal convolution, norm, Mish."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # Published names: the convolution is 0, the norm 2; 1 is a transposition there.
        self.block = nn.Sequential(CausalConv(inputs, outputs), nn.Identity(), ChannelNorm(outputs), nn.Mish())

    def forward(self, x: Float[Tensor, "batch inputs time"]) -> Float[Tensor, "batch outputs time"]:
        return self.block(x)


class ResidualBlock(nn.Module):
    """Two convolution blocks, the time added in between, beside a linear path."""

    def __init__(self, inputs: int, outputs: int, time_features: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_features, outputs))
        self.block1, self.block2 = ConvBlock(inputs, outputs), ConvBlock(outputs, outputs)
        self.res_conv = nn.Conv1d(inputs, outputs, 1)

    def forward(
        self, x: Float[Tensor, "batch inputs time"], times: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch outputs time"]:
        hidden = self.block1(x) + self.mlp(times)[..., None]
        return self.block2(hidden) + self.res_conv(x)


class Attention(nn.Module):
    """Multi-head self-attention whose heads are not bound to the number of channels."""

    def __init__(self, channels: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads, inner = heads, heads * head_size
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, inner, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(inner, channels)])

    def forward(
        self, x: Float[Tensor, "batch time channels"], visible: Bool[Tensor, "time time"] | None
    ) -> Float[Tensor, "batch time channels"]:
        query, key, value = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for linear in (self.to_q, self.to_k, self.to_v)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.to_out[0](mixed.transpose(1, 2).flatten(-2))


class Gelu(nn.Module):
    """A linear layer and GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)

    def forward(self, x: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time outputs"]:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    """To four times the channels and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Published names: the first layer is 0, the last 2; 1 is dropout there.
        self.net = nn.Sequential(Gelu(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch time channels"]:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each on a normed input and added to it."""

    def __init__(self, channels: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.norm1, self.norm3 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn1, self.ff = Attention(channels, heads, head_size), FeedForward(channels)

    def forward(
        self, x: Float[Tensor, "batch time channels"], visible: Bool[Tensor, "time time"] | None
    ) -> Float[Tensor, "batch time channels"]:
        x = x + self.attn1(self.norm1(x), visible)
        return x + self.ff(self.norm3(x))


class Stage(nn.ModuleList):
    """A residual block, attention blocks, and, on the way down and up, a convolution: items 0, 1 and 2."""

    def __init__(self, inputs: int, channels: int, heads: int, head_size: int, blocks: int, *, conv: bool) -> None:
        attention = nn.ModuleList(TransformerBlock(channels, heads, head_size) for _ in range(blocks))
        parts = [ResidualBlock(inputs, channels, 4 * channels), attention]
        super().__init__([*parts, CausalConv(channels, channels)] if conv else parts)

    def forward(
        self,
        x: Float[Tensor, "batch inputs time"],
        times: Float[Tensor, "batch features"],
        visible: Bool[Tensor, "time time"] | None,
    ) -> Float[Tensor, "batch channels time"]:
        """Run the residual block and the attention; the convolution is the caller's."""
        x = self[0](x, times).transpose(1, 2)
        blocks: Any = self[1]
        for block in blocks:
            x = block(x, visible)
        return x.transpose(1, 2)


class Estimator(nn.Module):
    """The velocity field.

    Parameters
    ----------
    mels
        Bands of the spectrogram; the input has four times as many: noisy mel, features, speaker and prompt.
    channels
        Of the convolutions.
    heads, head_size
        Of the attention.
    blocks
        Attention blocks after each residual block.
    middle
        Residual blocks, with their attention, in the middle.
    chunk
        Frames of a block of the streaming mask.
    """

    def __init__(
        self,
        mels: int = 80,
        channels: int = 256,
        heads: int = 8,
        head_size: int = 64,
        blocks: int = 4,
        middle: int = 12,
        chunk: int = 50,
    ) -> None:
        super().__init__()
        self.inputs, self.chunk = 4 * mels, chunk
        self.time_mlp = TimeNetwork(self.inputs, 4 * channels)
        shape = (channels, heads, head_size, blocks)
        self.down_blocks = nn.ModuleList([Stage(self.inputs, *shape, conv=True)])
        self.mid_blocks = nn.ModuleList(Stage(channels, *shape, conv=False) for _ in range(middle))
        self.up_blocks = nn.ModuleList([Stage(2 * channels, *shape, conv=True)])
        self.final_block = ConvBlock(channels, channels)
        self.final_proj = nn.Conv1d(channels, mels, 1)

    def forward(
        self,
        x: Float[Tensor, "batch mels time"],
        features: Float[Tensor, "batch mels time"],
        times: Float[Tensor, " batch"],
        speaker: Float[Tensor, "batch mels"],
        prompt: Float[Tensor, "batch mels time"],
        streaming: bool = False,
    ) -> Float[Tensor, "batch mels time"]:
        """Return the velocity at ``x``.

        Parameters
        ----------
        x
            The noisy spectrogram.
        features
            The encoder's.
        times
            From 0 (noise) to 1 (speech).
        speaker
            The projected speaker vector.
        prompt
            The reference's spectrogram, zeros where there is none.
        streaming
            Hide later blocks of frames.
        """
        length = x.shape[-1]
        visible = block_mask(length, self.chunk, x.device) if streaming else None
        times = self.time_mlp(time_embedding(times, self.inputs).to(x.dtype))
        x = torch.cat((x, features, speaker[..., None].expand(-1, -1, length), prompt), 1)
        down: Any = self.down_blocks[0]
        up: Any = self.up_blocks[0]
        skip = down(x, times, visible)
        x = down[2](skip)
        for stage in self.mid_blocks:
            x = stage(x, times, visible)
        x = up[2](up(torch.cat((x, skip), 1), times, visible))
        return self.final_proj(self.final_block(x))
