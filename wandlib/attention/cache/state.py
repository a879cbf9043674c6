"""What a cache holds: the counters and descriptions by which :mod:`.layout` places tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from wandlib.attention.cache.shared_prompt import Ownership
from wandlib.attention.cache.updates import Masks
from wandlib.attention.window import Tokens


@dataclass
class LayoutState:
    """What the cache holds. ``batch`` counts sequences; prompts where they are shared.

    ===================  ======================  =================================================================
    field                type and shape          meaning
    ===================  ======================  =================================================================
    batch                int                     sequences held; 0: nothing yet
    length               int; Tensor []          tokens seen so far, padding and evicted ones counted; static: Tensor
    generated            int; Tensor [batch, 1]  generated tokens so far; ragged or static: Tensor
    prefix_tokens        int                     conditioning slots, P
    conditioning         Tokens [batch, P]       what lies in them; None: the first P tokens, all real and pinned
    has_holes            bool                    whether some of them hold padding or nothing
    padding              Tensor [batch, 1]       padding tokens so far, by which position ids lag behind; None: none
    ring_position        Tensor [batch, W]       position of the token in each slot of the ring, where a layer has a
                                                 sliding window of its own; else None
    conditioning_seen    Tensor [batch, 1]       conditioning tokens so far, expired ones counted, where blocks expire
    block                Tensor [batch, 1]       text blocks that have begun; 0 where none expires
    block_open           Tensor [batch, 1]       whether further conditioning belongs to that block
    conditioning_ended   bool                    whether every later call of one token brings a generated one
    until_seen           Tensor [batch, 1]       whether the token of ``conditioning_until`` has come; else None
    rebuilt_length       int                     ``length`` after the last rebuild: what came later was generated
    ownership            [batch, 1, N, slots]    which slots each of N sequences reads, where they share prompts
    full_masks           Masks                   what a step sees with the ring full; before, it reads fewer columns
    ===================  ======================  =================================================================
    """

    batch: int = 0
    length: Any = 0
    generated: Any = 0
    prefix_tokens: int = 0
    conditioning: Tokens | None = None
    has_holes: bool = False
    padding: Tensor | None = None
    ring_position: Tensor | None = None
    conditioning_seen: Any = 0
    block: Any = 0
    block_open: Any = False
    conditioning_ended: bool = False
    until_seen: Tensor | None = None
    rebuilt_length: int = 0
    ownership: Ownership | None = None
    full_masks: Masks = field(default_factory=dict)

    def each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put ``change(tensor)`` in place of every tensor with a row for each sequence."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and value.ndim:
                setattr(self, name, change(value))
        if self.conditioning is not None:
            self.conditioning = Tokens(*map(change, self.conditioning))
