"""Running sums of the losses, for the log."""

from __future__ import annotations

from typing import Any

import torch

from wandlib.distillation.losses import Losses


class Meter:
    """Sums over positions, until they are logged as means."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, losses: Losses, prefix: str = "") -> None:
        """Add a batch; its names get the prefix."""
        for name, value in zip(losses.sums, torch.stack(list(losses.sums.values())).tolist(), strict=True):
            self.sums[prefix + name] = self.sums.get(prefix + name, 0.0) + value
            self.counts[prefix + name] = self.counts.get(prefix + name, 0) + losses.positions

    def means(self, accelerator: Any) -> dict[str, float]:
        """Return the means over the positions of all processes, each of which must call this."""
        if not self.sums:
            return {}
        # float32, since Apple's GPUs have no other.
        both = torch.tensor([*self.sums.values(), *self.counts.values()], device=accelerator.device)
        totals, counts = accelerator.reduce(both, "sum").reshape(2, -1).tolist()
        return {name: total / count for name, total, count in zip(self.sums, totals, counts, strict=True)}
