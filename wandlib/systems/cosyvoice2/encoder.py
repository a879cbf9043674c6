"""The encoder of the acoustic model: codes at 25 Hz to features at 50 Hz, with a look-ahead of three codes.

Conformer blocks without their convolution and their first feed-forward: what is left is attention with relative
positions. Six of them run on the codes, then every position is repeated and convolved, and four more run at twice the
rate. While streaming, a position sees its own block of ``chunk`` codes and all before it.

Source: CosyVoice 2, arXiv 2412.10117, section 2.4; names of the published ``flow.pt``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wandlib.systems.acoustics.feed_forward import FeedForward
from wandlib.systems.cosyvoice2.relative_attention import RelativeAttention, distance_embedding


def block_mask(length: int, block: int, device: torch.device) -> Bool[Tensor, "time time"]:
    """Whether a query (row) may see a key (column): in its own block of positions or in an earlier one."""
    blocks = torch.arange(length, device=device) // block
    return blocks[:, None] >= blocks


class Projection(nn.Module):
    """Linear, norm, and the scale sqrt(features) that stands for the sum with an absolute position."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(inputs, features), nn.LayerNorm(features))
        self.scale = math.sqrt(features)

    def forward(self, x: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time features"]:
        return self.out(x) * self.scale


class Block(nn.Module):
    """Attention, then feed-forward, each on a normed input and added to it."""

    def __init__(self, features: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(features, heads)
        self.feed_forward = FeedForward(features, hidden)
        self.norm_mha, self.norm_ff = nn.LayerNorm(features, eps=1e-12), nn.LayerNorm(features, eps=1e-12)

    def forward(
        self,
        x: Float[Tensor, "batch time features"],
        distances: Float[Tensor, "distances features"],
        visible: Bool[Tensor, "time time"] | None,
    ) -> Float[Tensor, "batch time features"]:
        x = x + self.self_attn(self.norm_mha(x), distances, visible)
        return x + self.feed_forward(self.norm_ff(x))


class LookAhead(nn.Module):
    """Convolutions that see ``ahead`` positions to the right, and two to the left, added to their input."""

    def __init__(self, features: int, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead
        self.conv1, self.conv2 = nn.Conv1d(features, features, ahead + 1), nn.Conv1d(features, features, 3)

    def forward(
        self, x: Float[Tensor, "batch time features"], future: Float[Tensor, "batch ahead features"] | None
    ) -> Float[Tensor, "batch time features"]:
        """Add what is to come: ``future``, or zeros at the end of the utterance."""
        wide = x.transpose(1, 2)
        wide = F.pad(wide, (0, self.ahead)) if future is None else torch.cat((wide, future.transpose(1, 2)), 2)
        hidden = F.leaky_relu(self.conv1(wide))
        return x + self.conv2(F.pad(hidden, (2, 0))).transpose(1, 2)


class Upsample(nn.Module):
    """Repeat every position, then a causal convolution over five."""

    def __init__(self, features: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv1d(features, features, 2 * factor + 1)

    def forward(self, x: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch longer features"]:
        longer = x.repeat_interleave(self.factor, dim=1).transpose(1, 2)
        return self.conv(F.pad(longer, (2 * self.factor, 0))).transpose(1, 2)


class UpsamplingEncoder(nn.Module):
    """Codes' embeddings to features of mel frames.

    Parameters
    ----------
    inputs
        Features of a code's embedding.
    features, heads, hidden
        Sizes of a block; ``hidden`` is its feed-forward's.
    blocks, upsampled_blocks
        Blocks at the rate of the codes and at the rate of mel frames.
    ahead
        Codes of look-ahead.
    chunk
        Codes of a block of the streaming mask.
    factor
        Mel frames for a code.
    """

    def __init__(
        self,
        inputs: int = 512,
        features: int = 512,
        heads: int = 8,
        hidden: int = 2048,
        blocks: int = 6,
        upsampled_blocks: int = 4,
        ahead: int = 3,
        chunk: int = 25,
        factor: int = 2,
    ) -> None:
        super().__init__()
        self.features, self.chunk, self.factor = features, chunk, factor
        self.embed = Projection(inputs, features)
        self.pre_lookahead_layer = LookAhead(features, ahead)
        self.encoders = nn.ModuleList(Block(features, heads, hidden) for _ in range(blocks))
        self.up_layer = Upsample(features, factor)
        self.up_embed = Projection(features, features)
        self.up_encoders = nn.ModuleList(Block(features, heads, hidden) for _ in range(upsampled_blocks))
        self.after_norm = nn.LayerNorm(features)

    def forward(
        self,
        x: Float[Tensor, "batch codes inputs"],
        future: Float[Tensor, "batch ahead inputs"] | None = None,
        streaming: bool = False,
    ) -> Float[Tensor, "batch frames features"]:
        """Encode.

        Parameters
        ----------
        x
            Embeddings of the codes.
        future
            Embeddings of the codes after them, as many as the look-ahead; None: the utterance ends here.
        streaming
            Hide later blocks of codes.
        """
        ahead = None if future is None else self.embed(future)
        x = self.pre_lookahead_layer(self.embed(x), ahead)
        x = self.run(self.encoders, x, self.chunk if streaming else None)
        x = self.up_embed(self.up_layer(x))
        x = self.run(self.up_encoders, x, self.chunk * self.factor if streaming else None)
        return self.after_norm(x)

    def run(
        self, blocks: nn.ModuleList, x: Float[Tensor, "batch time features"], chunk: int | None
    ) -> Float[Tensor, "batch time features"]:
        """Run blocks that share positions and mask."""
        length = x.shape[1]
        distances = distance_embedding(length, self.features, x.device, x.dtype)
        visible = None if chunk is None else block_mask(length, chunk, x.device)
        for block in blocks:
            x = block(x, distances, visible)
        return x
