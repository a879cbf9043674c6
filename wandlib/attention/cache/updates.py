"""What one forward pass does to the slots of every layer: one of three updates.

- :class:`RingWrite`: one generated token of every sequence, all at the same place of the ring (the usual decoding
  step; attention reads the slots in use with no mask at all unless there is padding, a layer has a sliding window of
  its own, or sequences share a prompt);
- :class:`ScatterWrite`: the same where the sequences are at different places (a *ragged* batch), or where the cache is
  static: counters are tensors, shapes never change, `torch.compile` compiles a step once;
- :class:`Rebuild`: anything else (prefill, chunks, conditioning in mid-stream, an expired text block): attention reads
  the slots in use followed by the new entries, then the slots are gathered anew from both.

They are named tuples since `torch.compile` traces the making of one in a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:
    from wandlib.attention.cache.state import LayoutState

Masks = dict[int | None, Tensor]
"""The additive mask for each sliding window that layers have of their own (None: none). Empty: no mask is needed."""


class RingWrite(NamedTuple):
    """Write the new entries to one place of the ring."""

    start: int
    """The first slot of that place; sequences that share a prompt have one each."""
    used: int
    """Slots in use afterwards, which attention reads."""


class ScatterWrite(NamedTuple):
    """Write the new entries to a place of the ring that differs from row to row."""

    rows: Int[Tensor, "batch 1"]
    """Row numbers."""
    slots: Int[Tensor, "batch sequences"]
    """The slots of the new entries in each row."""
    used: int
    """Slots that attention reads afterwards: in a dynamic cache there may be more, which longer texts needed."""


class Rebuild(NamedTuple):
    """Read the slots in use and the new entries, then gather the slots from both."""

    read: int
    """Slots in use before."""
    source: Int[Tensor, "batch kept"] | None
    """Which of those slots, followed by the new entries, fills each slot. None: the new entries, in turn."""
    capacity: int
    """Slots of the buffers afterwards."""
    pinned: int
    """How many of the first slots never expire."""
    pinned_stay: bool
    """Whether those hold what they held before."""
    fill_value: float
    """What an unwritten slot holds: NaN where nothing reads it, so that a wrong read cannot hide."""
    state: LayoutState
    """What lies where afterwards."""


Update = RingWrite | ScatterWrite | Rebuild


def lasting(tensor: Tensor) -> Tensor:
    """Return a tensor, or a copy, that may be changed outside of inference mode, too."""
    if torch.compiler.is_compiling() or not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def pin(*tensors: Tensor | None) -> None:
    """Promise `torch.compile` that these tensors stay where they are, so that a CUDA graph may write to them."""
    for tensor in tensors:
        if tensor is not None:
            torch._dynamo.mark_static_address(tensor)
