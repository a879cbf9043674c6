"""Weights that any machine makes the same: sines whose frequency follows from a parameter's name.

Golden values and the equality with published code rest on them: no random generator, no file of weights.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor, nn


def sinusoid(name: str, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Values in [-1, 1] that look like noise; ``name`` chooses them."""
    count = math.prod(shape)
    frequency = 1 + (zlib.crc32(name.encode()) % 9973) / 9973
    index = torch.arange(1, count + 1, dtype=torch.float64)
    return (index * index.sqrt() * frequency).sin().float().reshape(shape)


def fill(module: nn.Module, gain: float = 1.5) -> nn.Module:
    """Set every parameter and every running statistic of ``module``, in place; returns it in evaluation mode."""
    fill_state(module.state_dict(), gain)
    return module.eval()


@torch.no_grad()
def fill_state(state: dict[str, Tensor], gain: float = 1.5) -> dict[str, Tensor]:
    """Set every parameter and every running statistic of a state dict, in place; returns it."""
    for name, tensor in state.items():
        if not tensor.is_floating_point() or name.endswith((".filter", ".fb", ".window", ".pe")):
            continue
        wave = sinusoid(name, tensor.shape)
        if name.endswith(("running_var", "original0")) or (name.endswith("alpha") and tensor.ndim == 3):
            tensor.copy_(1 + 0.4 * wave)
        elif name.endswith("weight_g"):
            tensor.copy_(0.4 + 0.2 * wave)
        elif tensor.ndim >= 2:
            tensor.copy_(gain * wave / math.sqrt(max(1, tensor[0].numel())))
        elif name.endswith("weight"):
            tensor.copy_(1 + 0.2 * wave)
        else:
            tensor.copy_(0.2 * wave)
    return state
