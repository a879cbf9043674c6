"""The storage of one layer of the cache: buffers that follow a :mod:`wandlib.attention.cache.updates`, and know no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from wandlib.attention.cache.updates import Plan, pin

New = Float[Tensor, "batch kv_heads length _"]
Read = Float[Tensor, "batch kv_heads slots _"]


class WandLayer(CacheLayerMixin):
    """Keys and values of one layer; ``keys`` and ``values`` are [batch, kv_heads, slots, head_dim].

    Where prompts are shared, ``batch`` counts prompts, and a step brings an entry for each of their sequences.
    """

    is_sliding = False
    is_croppable = False  # what has left the window cannot come back
    keys: Any
    values: Any

    def __init__(self, plan: Plan, static: bool) -> None:
        super().__init__()
        self.plan = plan
        self.is_compileable = self.static = static
        self.places: list[tuple[Tensor, Tensor]] = []
        """Views of the ring, keys and values of each place; made when first needed."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the first plan brings the number of slots."""

    def update(self, key_states: New, value_states: New, *args: Any, **kwargs: Any) -> tuple[Read, Read]:
        """Store the new entries as planned; return the keys and values that attention is to read."""
        plan = self.plan
        if not plan.step:
            self.keys, key_states = self.rewritten(self.keys, key_states)
            self.values, value_states = self.rewritten(self.values, value_states)
            self.is_initialized = True
            return key_states, value_states
        self.store(plan, key_states, value_states)
        if plan.place is None or plan.used == plan.capacity:
            return self.keys, self.values
        return self.keys.narrow(2, 0, plan.used), self.values.narrow(2, 0, plan.used)

    def store(self, plan: Plan, key_states: New, value_states: New) -> None:
        """Put a step's entries into the ring."""
        if plan.place is None:
            assert plan.slots is not None
            row, slot = plan.slots
            slot = slot - self.kept_apart
            self.keys[row, :, slot] = key_states.transpose(1, 2)
            self.values[row, :, slot] = value_states.transpose(1, 2)
        elif key_states.requires_grad or value_states.requires_grad:  # they may flow back to what earlier steps stored
            count = key_states.shape[2]
            start = plan.prefix - self.kept_apart + plan.place * count
            self.keys = self.keys.slice_scatter(key_states, 2, start, start + count)
            self.values = self.values.slice_scatter(value_states, 2, start, start + count)
            self.places = []
        else:
            keys, values = (self.places or self.cut(key_states.shape[2]))[plan.place]
            keys.copy_(key_states)
            values.copy_(value_states)

    def cut(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Cut the ring into places of ``count`` slots: views, made once."""
        self.keys, self.values = self.keys.detach(), self.values.detach()
        rings = (held[:, :, self.plan.prefix - self.kept_apart :] for held in (self.keys, self.values))
        self.places = list(zip(*(ring.split(count, dim=2) for ring in rings), strict=True))
        return self.places

    @property
    def kept_apart(self) -> int:
        """How many of the conditioning slots are not in ``keys`` and ``values``."""
        return 0

    def rewritten(self, old: Tensor | None, new: Tensor) -> tuple[Tensor, Tensor]:
        """Gather the slots from the old buffer and the new entries; return the buffer and what attention reads."""
        plan = self.plan
        self.places = []
        read = new if old is None or plan.used == 0 else torch.cat([old[:, :, : plan.used], new], dim=2)
        kept = read.detach()
        if plan.source is not None:
            kept = kept.gather(2, plan.source[:, None, :, None].expand(-1, new.shape[1], -1, new.shape[3]))
        shape = (new.shape[0], new.shape[1], plan.capacity, new.shape[3])
        if old is None or old.shape != shape:
            old = new.new_empty(shape)
            if self.static:
                pin(old)
        old[:, :, : kept.shape[2]] = kept
        old[:, :, kept.shape[2] :] = plan.fill
        return old, read

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes if self.is_initialized else 0

    def held(self, used: int) -> tuple[Read, Read]:
        """Keys and values of the first ``used`` slots."""
        return self.keys[:, :, :used], self.values[:, :, :used]

    def each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put ``change(tensor)`` in place of every tensor; each has a row for each sequence."""
        if self.is_initialized:
            self.keys, self.values, self.places = change(self.keys), change(self.values), []
            if self.static:
                pin(self.keys, self.values)

    def clear(self) -> None:
        """Let go of the buffers."""
        self.keys = self.values = None
        self.is_initialized, self.places = False, []

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys attention will read, and offset 0: slots are not positions."""
        plan = self.plan
        if not plan.pending:  # `generate` asks, to prepare masks for a static cache; the plan replaces them
            return plan.capacity + query_length, 0
        if plan.place is not None:
            return plan.used, 0
        return plan.capacity if plan.slots is not None else plan.used + query_length, 0

    def get_seq_length(self) -> int:
        """Not known here: the cache counts for all its layers."""
        raise NotImplementedError("ask the cache: WandCache.get_seq_length()")

    def get_max_length(self) -> int:
        """No maximum: the ring rolls."""
        return -1


class Int8Layer(WandLayer):
    """A layer that keeps its conditioning entries in int8; ``keys`` and ``values`` are the ring alone.

    Each head and channel has a scale, the largest of its entries over 127. Attention reads a dequantised copy, so that
    a step costs the copy: this saves memory, not time.
    """

    def __init__(self, plan: Plan, static: bool) -> None:
        super().__init__(plan, static)
        self.quantised: list[Tensor] = []
        """Keys [batch, kv_heads, P, head_dim] as int8, scales [batch, kv_heads, 1, head_dim]; the same of values."""

    def update(self, key_states: New, value_states: New, *args: Any, **kwargs: Any) -> tuple[Read, Read]:
        """Store the new entries as planned; return the keys and values that attention is to read."""
        plan = self.plan
        if not plan.step:
            old = self.held(plan.used) if self.is_initialized and plan.used else (None, None)
            buffers, read = zip(*map(self.rewritten, old, (key_states, value_states)), strict=True)
            self.keys, self.values = (buffer[:, :, plan.prefix :].clone() for buffer in buffers)
            self.quantised = [part for buffer in buffers for part in quantise(buffer[:, :, : plan.prefix])]
            self.is_initialized = True
            return read
        self.store(plan, key_states, value_states)
        return self.held(plan.capacity if plan.place is None else plan.used)

    @property
    def kept_apart(self) -> int:
        """How many of the conditioning slots are not in ``keys`` and ``values``."""
        return self.plan.prefix

    @property
    def nbytes(self) -> int:
        """Bytes of the ring, the int8 entries and their scales."""
        return super().nbytes + sum(part.nbytes for part in self.quantised)

    def held(self, used: int) -> tuple[Read, Read]:
        """Keys and values of the first ``used`` slots, dequantised."""
        keys, key_scale, values, value_scale = self.quantised
        rolling = used - keys.shape[2]
        return (
            torch.cat([keys * key_scale, self.keys[:, :, :rolling]], dim=2),
            torch.cat([values * value_scale, self.values[:, :, :rolling]], dim=2),
        )

    def each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put ``change(tensor)`` in place of every tensor."""
        super().each(change)
        self.quantised = [change(part) for part in self.quantised]

    def clear(self) -> None:
        """Let go of the buffers."""
        super().clear()
        self.quantised = []


def quantise(entries: Read) -> tuple[Tensor, Tensor]:
    """Int8 entries, and the scale of each head and channel."""
    scale = entries.abs().amax(2, keepdim=True).clamp(min=torch.finfo(entries.dtype).tiny) / 127
    # In bfloat16 the quotient of the largest entry can round to 128, which int8 does not hold.
    return (entries / scale).round().clamp(-127, 127).to(torch.int8), scale
