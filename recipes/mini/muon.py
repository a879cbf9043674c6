"""Muon, for processors too: :class:`torch.optim.Muon` orthogonalizes in bfloat16 wherever it runs.

A CPU that does not compute in bfloat16 takes ten times as long for that as for all the rest of a step. Here it is done
in the precision of the gradients; all else is torch's (Jordan et al., kellerjordan.github.io/posts/muon).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix of the same singular vectors, and singular values of about 1 (Newton-Schulz iteration)."""
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp_min(1e-7)
    for _ in range(STEPS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized, and scaled so that an entry changes as much as AdamW would change it.

    Parameters
    ----------
    params
        Matrices alone.
    lr
        AdamW's.
    weight_decay
        Decoupled.
    momentum
        Of the gradients' average.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; ``closure`` is not used."""
        for group in self.param_groups:
            for value in group["params"]:
                if value.grad is not None:
                    self._update(value, group)

    def _update(self, value: Tensor, group: dict[str, Any]) -> None:
        state = self.state[value]
        average = state.setdefault("momentum_buffer", torch.zeros_like(value.grad))
        average.lerp_(value.grad, 1 - group["momentum"])
        update = orthogonal(value.grad.lerp(average, group["momentum"]))
        value.mul_(1 - group["lr"] * group["weight_decay"])
        value.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(value.shape)))
