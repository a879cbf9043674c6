"""The one block that codec and vocoder are made of."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ConvNeXt(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron per frame, with a residual path.

    Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545; in one dimension as in Vocos, arXiv 2306.00814.
    ``condition`` is a vector per utterance that shifts and scales the normalized frames.
    """

    def __init__(self, width: int, expansion: int = 3, kernel: int = 7, condition: int = 0) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
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
        return self._mixed(frames, self.depthwise(frames.transpose(1, 2)), condition)

    @property
    def reach(self) -> int:
        """Frames to each side that a frame depends on."""
        return self.depthwise.kernel_size[0] // 2

    def inside(
        self, frames: Float[Tensor, "batch time width"], condition: Float[Tensor, "batch condition"] | None = None
    ) -> Float[Tensor, "batch inner width"]:
        """Return the frames that have all neighbors: ``reach`` fewer at each end, and nothing padded."""
        mixed = nn.functional.conv1d(
            frames.transpose(1, 2), self.depthwise.weight, self.depthwise.bias, groups=self.depthwise.groups
        )
        return self._mixed(frames[:, self.reach : frames.shape[1] - self.reach], mixed, condition)

    def _mixed(self, frames: Tensor, mixed: Tensor, condition: Tensor | None) -> Tensor:
        """Return the frames plus what the block makes of their convolution, [batch, width, time]."""
        hidden = self.norm(mixed.transpose(1, 2))
        if self.modulate is not None:
            if condition is None:
                raise ValueError("this block was built with a condition; give it one")
            gain, shift = self.modulate(condition).unsqueeze(1).chunk(2, dim=-1)
            hidden = hidden * (1 + gain) + shift
        return frames + self.scale * self.contract(nn.functional.gelu(self.expand(hidden)))
