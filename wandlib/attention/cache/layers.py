"""The storage of one layer of the cache: buffers that follow an update, and know no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from wandlib.attention.cache.layout import CacheLayout
from wandlib.attention.cache.updates import Rebuild, RingWrite, ScatterWrite, Update, lasting, pin

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

    def __init__(self, layout: CacheLayout) -> None:
        super().__init__()
        self.layout = layout
        self.is_compileable = self.static = layout.static
        self.places: dict[int, tuple[Tensor, Tensor]] = {}
        """Views of the ring, keys and values of a place, by its first slot; cut when first needed."""

    def apply(self, update: Update, key_states: New, value_states: New) -> tuple[Read, Read]:
        """Store the new entries; return the keys and values that attention is to read."""
        if isinstance(update, Rebuild):
            return self.rebuild(update, key_states, value_states)
        self.store(update, key_states, value_states)
        return self.held(update.used)

    def store(self, update: RingWrite | ScatterWrite, key_states: New, value_states: New) -> None:
        """Put a step's entries into the ring."""
        if self.static:
            key_states, value_states = key_states.detach(), value_states.detach()
        flows = torch.is_grad_enabled() and any(
            part.requires_grad for part in (key_states, value_states, self.keys, self.values)
        )
        if isinstance(update, ScatterWrite):
            if flows:  # what earlier steps read is needed to go back through them
                self.keys, self.values = self.keys.clone(), self.values.clone()
            device = self.keys.device  # one plan for layers on several devices
            rows, slots = update.rows.to(device), update.slots.to(device) - self.quantized_slots
            self.keys[rows, :, slots] = key_states.transpose(1, 2)
            self.values[rows, :, slots] = value_states.transpose(1, 2)
            return
        start, length = update.start - self.quantized_slots, key_states.shape[2]
        if flows:
            self.keys = self.keys.slice_scatter(key_states, 2, start, start + length)
            self.values = self.values.slice_scatter(value_states, 2, start, start + length)
            self.places = {}
        else:
            keys, values = self.places.get(start) or self._cut(start, length)
            keys.copy_(key_states)
            values.copy_(value_states)

    def _cut(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        """Cut a place of ``length`` slots out of the ring, and keep it for the next time round."""
        self.keys, self.values = self.keys.detach(), self.values.detach()
        self.places[start] = self.keys.narrow(2, start, length), self.values.narrow(2, start, length)
        return self.places[start]

    @torch.compiler.disable
    def rebuild(self, update: Rebuild, key_states: New, value_states: New) -> tuple[Read, Read]:
        """Gather the slots from what they hold and the new entries; return what attention reads."""
        self.places = {}
        old = self.held(update.read) if self.is_initialized and update.read else None
        read = (key_states, value_states)
        if old is not None:
            read = (torch.cat([old[0], key_states], dim=2), torch.cat([old[1], value_states], dim=2))
        before = (self.keys, self.values) if self.is_initialized else (None, None)
        self.keys, self.values = (_refilled(*pair, update, self.static) for pair in zip(before, read, strict=True))
        self.is_initialized = True
        return read

    @property
    def quantized_slots(self) -> int:
        """How many of the first slots are not in ``keys`` and ``values``."""
        return 0

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes if self.is_initialized else 0

    def held(self, used: int) -> tuple[Read, Read]:
        """Return keys and values of the first ``used`` slots."""
        if used == self.keys.shape[2]:
            return self.keys, self.values
        return self.keys.narrow(2, 0, used), self.values.narrow(2, 0, used)

    def each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put ``change(tensor)`` in place of every tensor; each has a row for each sequence."""
        if self.is_initialized:
            self.keys, self.values, self.places = lasting(change(self.keys)), lasting(change(self.values)), {}
            if self.static:
                pin(self.keys, self.values)

    def clear(self) -> None:
        """Let go of the buffers."""
        self.keys = self.values = None
        self.is_initialized, self.places = False, {}

    # ------------------------------------------------------------------------------- what transformers asks of a layer

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the first update brings the number of slots."""

    def update(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: only the cache knows the update that all its layers follow."""
        raise NotImplementedError("update the cache: WandCache.update()")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys attention will read, and offset 0: slots are not positions."""
        return self.layout.mask_length(query_length), 0

    def get_seq_length(self) -> NoReturn:
        """Refuse: the cache counts for all its layers."""
        raise NotImplementedError("ask the cache: WandCache.get_seq_length()")

    def get_max_length(self) -> int:
        """Return -1, no maximum: the ring rolls."""
        return -1


class Int8Layer(WandLayer):
    """A layer that keeps its pinned entries in int8; ``keys`` and ``values`` are the rest.

    Each head and channel has a scale, the largest of its entries over 127. Attention reads a dequantized copy, so that
    a step costs the copy: this saves memory, not time.
    """

    def __init__(self, layout: CacheLayout) -> None:
        super().__init__(layout)
        self.quantized: list[Tensor] = []
        """Keys [batch, kv_heads, pinned, head_dim] as int8, scales [batch, kv_heads, 1, head_dim]; and of values."""

    def rebuild(self, update: Rebuild, key_states: New, value_states: New) -> tuple[Read, Read]:
        """Gather the slots from what they hold and the new entries; return what attention reads.

        Entries that were pinned before are left as they are, unless more come to be pinned: then all are rounded anew,
        to what the larger of both scales allows.
        """
        read, pinned = super().rebuild(update, key_states, value_states), update.pinned
        both = self.keys, self.values
        if not (update.pinned_stay and self.quantized_slots == pinned):
            self.quantized = [part for buffer in both for part in quantize(buffer[:, :, :pinned].detach())]
        self.keys, self.values = (lasting(buffer[:, :, pinned:].clone()) for buffer in both)
        return read

    @property
    def quantized_slots(self) -> int:
        """How many of the first slots are not in ``keys`` and ``values``."""
        return self.quantized[0].shape[2] if self.quantized else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the float entries, the int8 entries and their scales."""
        return super().nbytes + sum(part.nbytes for part in self.quantized)

    def held(self, used: int) -> tuple[Read, Read]:
        """Return keys and values of the first ``used`` slots, dequantized."""
        if not self.quantized:
            return super().held(used)
        keys, key_scale, values, value_scale = self.quantized
        rest = used - keys.shape[2]
        return (
            torch.cat([keys * key_scale, self.keys[:, :, :rest]], dim=2),
            torch.cat([values * value_scale, self.values[:, :, :rest]], dim=2),
        )

    def each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put ``change(tensor)`` in place of every tensor."""
        super().each(change)
        self.quantized = [change(part) for part in self.quantized]

    def clear(self) -> None:
        """Let go of the buffers."""
        super().clear()
        self.quantized = []


def _refilled(buffer: Tensor | None, read: Tensor, update: Rebuild, static: bool) -> Tensor:
    """Put the entries to keep into the first slots of the buffer, or of a new one."""
    kept = read.detach() if static else read
    if update.source is not None:
        source = update.source.to(read.device)  # one plan for layers on several devices
        kept = kept.gather(2, source[:, None, :, None].expand(-1, read.shape[1], -1, read.shape[3]))
    shape = (*kept.shape[:2], update.capacity, kept.shape[3])
    if kept.requires_grad:  # gradients flow back to what is kept
        rest = kept.new_full((*shape[:2], shape[2] - kept.shape[2], shape[3]), update.fill_value)
        return torch.cat([kept, rest], dim=2)
    if buffer is None or (buffer.shape, buffer.dtype, buffer.device) != (shape, kept.dtype, kept.device):
        with torch.inference_mode(False):  # else it could not be written to outside of inference mode
            buffer = kept.new_empty(shape)
        if static:
            pin(buffer)
    buffer = buffer.detach()
    buffer[:, :, : kept.shape[2]] = kept
    buffer[:, :, kept.shape[2] :] = update.fill_value
    return buffer


def quantize(entries: Read) -> tuple[Tensor, Tensor]:
    """Round to int8; return the entries, and the scale of each head and channel."""
    scale = entries.abs().amax(2, keepdim=True).clamp(min=torch.finfo(entries.dtype).tiny) / 127
    # In bfloat16 the quotient of the largest entry can round to 128, which int8 does not hold.
    return (entries / scale).round().clamp(-127, 127).to(torch.int8), scale


def locate_nonfinite(layers: list[tuple[Read, Read]]) -> str:
    """Say where numbers first went wrong, from the keys and values that each layer left behind."""
    for index, entries in enumerate(layers):
        keys_fine, values_fine = (bool(held.isfinite().all()) for held in entries)
        if keys_fine and values_fine:
            continue
        if keys_fine or values_fine or index == 0:
            return f"they first went wrong in layer {index}, in its {'values' if keys_fine else 'keys'}"
        return f"they first went wrong in layer {index - 1}, in its output"
    return f"all keys and values are finite: look at the output of layer {len(layers) - 1}, the last norm and the head"
