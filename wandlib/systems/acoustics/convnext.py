"""ConvNeXt in one dimension, with a condition where one is given: the backbone of Vocos.

A block keeps the frame rate::

    y = x + gamma * W2 gelu(W1 norm(depthwise_7(x)))

Liu et al., arXiv 2201.03545; in one dimension Siuzdak, arXiv 2306.00814. With a condition c (a vector for each
utterance) the norm scales and shifts by linear functions of it: ``norm(x) * (A c + a) + (B c + b)``.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6

Condition = Float[Tensor, "batch condition"]


class ConditionalNorm(nn.Module):
    """Layer norm over features whose scale and shift are linear in a condition."""

    def __init__(self, condition: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Linear(condition, width)
        self.shift = nn.Linear(condition, width)

    def forward(
        self, frames: Float[Tensor, "batch time width"], condition: Condition
    ) -> Float[Tensor, "batch time width"]:
        normalized = F.layer_norm(frames, frames.shape[-1:], eps=EPSILON)
        return normalized * self.scale(condition).unsqueeze(1) + self.shift(condition).unsqueeze(1)


class Block(nn.Module):
    """One ConvNeXt block.

    Parameters
    ----------
    width, hidden
        Features outside and inside the perceptron.
    condition
        Features of the condition; None: none is taken.
    """

    def __init__(self, width: int, hidden: int, condition: int | None = None) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = _norm(width, condition)
        self.pwconv1 = nn.Linear(width, hidden)
        self.pwconv2 = nn.Linear(hidden, width)
        self.gamma = nn.Parameter(nn.init.ones_(self.pwconv2.weight.new_empty(width)))

    def forward(
        self, frames: Float[Tensor, "batch width time"], condition: Condition | None = None
    ) -> Float[Tensor, "batch width time"]:
        hidden = _normalize(self.norm, self.dwconv(frames).transpose(1, 2), condition)
        hidden = self.gamma * self.pwconv2(F.gelu(self.pwconv1(hidden)))
        return frames + hidden.transpose(1, 2)


class Backbone(nn.Module):
    """Convolution to ``width`` features, norm, ConvNeXt blocks, norm; the frame rate stays.

    Parameters
    ----------
    inputs, width, hidden
        Features of the input, of the output, and inside the blocks.
    layers
        Number of blocks.
    condition
        Features of the condition; None: none is taken.
    """

    def __init__(self, inputs: int, width: int, hidden: int, layers: int, condition: int | None = None) -> None:
        super().__init__()
        self.embed = nn.Conv1d(inputs, width, 7, padding=3)
        self.norm = _norm(width, condition)
        self.convnext = nn.ModuleList(Block(width, hidden, condition) for _ in range(layers))
        self.final_layer_norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(
        self, frames: Float[Tensor, "batch inputs time"], condition: Condition | None = None
    ) -> Float[Tensor, "batch time width"]:
        hidden = _normalize(self.norm, self.embed(frames).transpose(1, 2), condition).transpose(1, 2)
        for block in self.convnext:
            hidden = block(hidden, condition)
        return self.final_layer_norm(hidden.transpose(1, 2))


def _norm(width: int, condition: int | None) -> nn.Module:
    return nn.LayerNorm(width, eps=EPSILON) if condition is None else ConditionalNorm(condition, width)


def _normalize(norm: nn.Module, frames: Tensor, condition: Tensor | None) -> Tensor:
    """Apply a norm that takes a condition or does not."""
    normalized: Tensor
    if not isinstance(norm, ConditionalNorm):
        normalized = norm(frames)
        return normalized
    if condition is None:
        raise ValueError("this backbone was built with a condition: pass one vector for each utterance")
    normalized = norm(frames, condition)
    return normalized
