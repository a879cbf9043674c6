"""The plan of a forward pass: what it does to the slots of every layer.

Three kinds of plan:

- *one slot*: a generated token in every sample, all at the same place of the ring (the usual decoding step; attention
  reads the slots in use with no mask at all unless there is padding, a layer has a sliding window of its own, or
  sequences share a prompt);
- *one slot per sample*: the same when the samples have generated different numbers of tokens (a *ragged* batch), or
  when the cache is static: counters are tensors, shapes never change, `torch.compile` compiles a step once;
- *rewrite*: anything else (prefill, chunks, conditioning in mid-stream): attention reads the slots in use followed by
  the new entries, under a mask from the rule, then the slots are gathered anew from both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

Masks = dict[int | None, Tensor]
"""The additive mask for each sliding window that layers have of their own (None: none). Empty: no mask is needed."""


@dataclass
class Plan:
    """What the forward pass under way does to every layer."""

    pending: bool = False
    """Made, but not yet followed by the first layer."""
    place: int | None = None
    """One slot: which place of the ring the new entry goes to; those that share a prompt have a slot each there."""
    slots: tuple[Int[Tensor, "batch 1"], Int[Tensor, "batch sequences"]] | None = None
    """One slot per sample: the rows of the batch, and where in each the new entries go."""
    source: Int[Tensor, "batch slots"] | None = None
    """Rewrite: which of the slots in use, followed by the new entries, fills each slot. None: the new ones, in turn."""
    used: int = 0
    """One slot: the slots in use after the step. Rewrite: before it."""
    capacity: int = 0
    """Slots of the buffer after the step."""
    prefix: int = 0
    """Those of them that are for conditioning."""
    fill: float = float("nan")
    """What an unwritten slot holds: NaN where nothing reads it, so that a wrong read cannot hide."""
    after: dict[str, Any] = field(default_factory=dict)
    """Rewrite: the state once it is followed."""

    @property
    def step(self) -> bool:
        """Whether this is a usual decoding step, not a rewrite."""
        return self.place is not None or self.slots is not None


def pin(*tensors: Tensor | None) -> None:
    """Promise `torch.compile` that these tensors stay where they are, so that a CUDA graph may write to them."""
    for tensor in tensors:
        if tensor is not None:
            torch._dynamo.mark_static_address(tensor)
