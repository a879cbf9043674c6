"""Several optimisers as one, for a Trainer that takes one: Muon for the matrices and AdamW for the rest, say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class JointOptimizer(Optimizer):
    """Step several optimisers together.

    Their parameter groups are shared, so that a learning-rate schedule over this one reaches all of them. ::

        trainer = WandTrainer(model=student, optimizers=(JointOptimizer(muon, adamw), None), ...)

    Parameters
    ----------
    optimizers
        Over different parameters.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # there is no closure
        """Step each of them."""
        if closure is not None:
            raise ValueError("several optimisers cannot share a closure: compute the loss before step()")
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states, one for each."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave."""
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self._share_groups()
