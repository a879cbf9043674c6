"""The one block that codec and vocoder are made of."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ConvNeXt(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron per frame, with a residual path.

    Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545; in one dimension as in Vocos, arXiv 2306.00814.
    ``condition`` is a vector per utterance that shifts and scales the normalized frames.

    Attributes
    ----------
    behind, ahead
        Frames before a frame, and after it, that it depends on: together one less than the kernel, by default the same.
    """

    def __init__(
        self, width: int, expansion: int = 3, kernel: int = 7, condition: int = 0, ahead: int | None = None
    ) -> None:
        super().__init__()
        self.ahead = kernel // 2 if ahead is None else ahead
        self.behind = kernel - 1 - self.ahead
        if min(self.behind, self.ahead) < 0:
            raise ValueError(f"a kernel of {kernel} frames sees 0 to {kernel - 1} of them ahead, not {ahead}")
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width)
        self.norm = nn.LayerNorm(width)
        self.modulate = nn.Linear(condition, 2 * width) if condition else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(
        self, frames: Float[Tensor, "batch time width"], condition: Float[Tensor, "batch condition"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        return self.inside(nn.functional.pad(frames, (0, 0, self.behind, self.ahead)), condition)

    def inside(
        self, frames: Float[Tensor, "batch time width"], condition: Float[Tensor, "batch condition"] | None = None
    ) -> Float[Tensor, "batch inner width"]:
        """Return the frames that have all neighbors: ``behind`` fewer at the start, ``ahead`` fewer at the end."""
        hidden = self.norm(self.depthwise(frames.transpose(1, 2)).transpose(1, 2))
        frames = frames[:, self.behind : frames.shape[1] - self.ahead]
        if self.modulate is not None:
            if condition is None:
                raise ValueError("this block was built with a condition; give it one")
            gain, shift = self.modulate(condition).unsqueeze(1).chunk(2, dim=-1)
            hidden = hidden * (1 + gain) + shift
        return frames + self.scale * self.contract(nn.functional.gelu(self.expand(hidden)))
