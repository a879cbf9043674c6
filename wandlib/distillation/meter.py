"""Running sums of the losses, for the log, over all processes and over each utterance once."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import IterableDataset

from wandlib.distillation.losses import IGNORE_INDEX, Losses


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

    def means(self) -> dict[str, float]:
        """Return the means over the positions of all processes, each of which must call this, whatever it added."""
        total: dict[str, tuple[float, int]] = {}
        for name, value, count in gather_object([(name, self.sums[name], self.counts[name]) for name in self.sums]):
            so_far = total.get(name, (0.0, 0))
            total[name] = (so_far[0] + value, so_far[1] + count)
        return {name: value / count for name, (value, count) in total.items()}


def check_countable(dataset: Any, processes: int) -> None:
    """Raise ValueError where several processes would count utterances twice, and nothing would tell which."""
    if processes > 1 and isinstance(dataset, IterableDataset):
        raise ValueError(
            f"an IterableDataset cannot be evaluated by {processes} processes: accelerate repeats utterances at its "
            "end, and does not say how many. Give eval_dataset as a list, or evaluate in one process"
        )


def without_repeats(labels: Int[Tensor, "batch time"], accelerator: Any) -> tuple[Int[Tensor, "batch time"], bool]:
    """Leave out the utterances that accelerate repeats so that all processes have a last batch of the same size.

    It hands the first processes what is left of the dataset, and fills up from its beginning.

    Returns
    -------
    The labels, -100 in repeated rows, and True; the labels as they are, and False, where all rows are repeated.
    """
    state = accelerator.gradient_state
    if not state.end_of_dataloader or state.remainder < 1:
        return labels, True
    places = accelerator.process_index * len(labels) + torch.arange(len(labels), device=labels.device)
    kept = labels.masked_fill((places >= state.remainder)[:, None], IGNORE_INDEX)
    return (kept, True) if bool((kept[:, 1:] != IGNORE_INDEX).any()) else (labels, False)
