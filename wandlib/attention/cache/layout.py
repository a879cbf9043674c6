"""Which token lies in which slot of the cache, and what the next forward pass does to the slots.

The same for every layer, and worked out once per forward pass, before the first layer runs::

    slots   0 ............ P-1 | P ............ P+W-1
            conditioning       | ring: generated token n (from 0) lies in slot P + n % W

Where text blocks expire, their slots are taken by the next ones and P follows. Where N sequences share a prompt, the
ring has N slots for each of these (:mod:`.shared_prompt`). What comes out is one of the :mod:`.updates` for the layers,
and the masks of the pass: of a decoding step here, of any other pass in :mod:`.rebuilding`. Which key is visible is
decided by :mod:`wandlib.attention.window` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, SupportsIndex

import torch
from jaxtyping import Bool
from torch import Tensor

from wandlib.attention.cache.shared_prompt import assign, mask_others
from wandlib.attention.cache.state import LayoutState
from wandlib.attention.cache.updates import Masks, Rebuild, RingWrite, ScatterWrite, Update, lasting, pin
from wandlib.attention.checks import check_number
from wandlib.attention.window import PADDING, UNBOUNDED, Tokens, additive_mask, tokens


class CacheLayout:
    """The tokens that a cache holds, by slot.

    Parameters
    ----------
    window, blocks
        Generated keys, and text blocks, that a query sees.
    pinned
        Conditioning tokens at the start that never expire.
    sliding_windows
        The sliding windows that layers have of their own.
    static, capacity, block_capacity, shared
        As for :class:`wandlib.WandCache`.
    """

    def __init__(
        self,
        window: int,
        sliding_windows: set[int | None],
        *,
        blocks: int = UNBOUNDED,
        pinned: int = 0,
        static: bool = False,
        capacity: SupportsIndex | float | None = None,
        block_capacity: SupportsIndex | float | None = None,
        shared: int = 1,
    ) -> None:
        self.window, self.blocks, self.pinned, self.shared = window, blocks, pinned, shared
        self.sliding_windows, self.static = sliding_windows, static
        self.capacity = None if capacity is None else check_number("capacity, in tokens,", capacity, 1)
        self.block_capacity: int | None = None
        if block_capacity is not None:
            self.block_capacity = check_number("block_capacity, the longest text block,", block_capacity, 1)
            self.capacity = pinned + blocks * self.block_capacity
        self.narrowest = min((limit for limit in sliding_windows if limit is not None), default=None)
        self.reset()

    def reset(self) -> None:
        """Hold nothing."""
        self.state = LayoutState()
        self.update: Update | None = None
        self.updated = 0
        """Layers that have followed the update under way, in order."""
        self.slots = 0
        """Slots of the buffers."""

    @property
    def expires(self) -> bool:
        """Whether text blocks expire."""
        return self.blocks < UNBOUNDED

    def used(self, generated: Any) -> int:
        """Count the slots in use after ``generated`` tokens; all of them where that differs from row to row."""
        ring = self.window if isinstance(generated, Tensor) else min(generated, self.window)
        return self.state.prefix_tokens + self.shared * ring

    def tokens(self, generated: Any, batch: int, device: torch.device) -> Tokens:
        """Describe the slots in use after ``generated`` tokens; an empty slot looks like padding."""
        state = self.state
        held = state.conditioning
        if held is None:
            held = tokens(torch.ones(1, state.prefix_tokens, dtype=torch.bool, device=device))
        slot = torch.arange((self.used(generated) - state.prefix_tokens) // self.shared, device=device)[None]
        count = generated - (generated - 1 - slot) % self.window  # of the last token that fell into each slot
        count = torch.where(count > 0, count, PADDING)
        zero = torch.zeros_like(slot)
        # Without sliding windows, layers only need to know that what is held came before the query.
        position = zero if state.ring_position is None else state.ring_position[:, : slot.shape[1]]
        ring = Tokens(position, count, zero.bool(), zero, zero)
        if self.shared > 1:
            ring = Tokens(*(part.repeat_interleave(self.shared, 1) for part in ring))
        parts = zip(held, ring, strict=True)
        return Tokens(*(torch.cat([a.expand(batch, -1), b.expand(batch, -1)], 1) for a, b in parts))

    def started(self) -> Bool[Tensor, " batch"] | None:
        """Say which sequences hold a token that is not padding; None: there was no padding."""
        state = self.state
        if state.padding is None:
            return None
        held = state.conditioning
        if held is None:
            return torch.ones(state.batch, dtype=torch.bool)
        generated = torch.as_tensor(state.generated, device=held.conditioning.device) > 0
        return (held.conditioning.any(1, keepdim=True) | generated).expand(state.batch, 1)[:, 0]

    def mask_length(self, query_length: int) -> int:
        """Count the keys that attention reads in the pass under way, or that `generate` should prepare a mask for."""
        update = self.update
        if isinstance(update, Rebuild):
            return update.read + query_length
        if update is not None:
            return update.used
        if not (self.static and query_length == 1 and self.state.conditioning_ended):
            # The whole sequence: its columns say what is padding, and a model around the decoder may index them.
            return int(self.state.length) + query_length
        return self.slots + query_length

    # ----------------------------------------------------------------------------------------------- a decoding step

    def stage_step(self, batch: int, dtype: torch.dtype, device: torch.device) -> Masks:
        """Plan a usual decoding step: one generated token in each of ``batch`` x ``shared`` sequences.

        Raises
        ------
        ValueError
            If the batch is not the one that is held.
        """
        state = self.state
        if batch != state.batch:
            self.refuse_batch(batch)
        count = state.generated
        index = count % self.window
        if isinstance(count, Tensor):
            slots = state.prefix_tokens + index * self.shared + torch.arange(self.shared, device=device)
            rows = torch.arange(len(count), device=device)[:, None]
            self.update = ScatterWrite(rows, slots, self.used(count))
            if state.ring_position is not None:
                state.ring_position.scatter_(1, index, torch.zeros_like(index) + state.length)
            return self._mask_others(self._step_masks(count + 1, dtype, device), slots)
        used, start = self.used(count + 1), state.prefix_tokens + index * self.shared
        self.update = RingWrite(start, used)
        if self.narrowest is not None and state.ring_position is not None:
            state.ring_position[:, index] = state.length
            if state.length + 1 >= self.narrowest:
                return self._mask_others(self._step_masks(count + 1, dtype, device), start)
        if not state.has_holes and state.ownership is None:
            return {}
        if not state.full_masks:
            state.full_masks = {k: lasting(mask) for k, mask in self._step_masks(self.window, dtype, device).items()}
        return self._mask_others({limit: mask[..., :used] for limit, mask in state.full_masks.items()}, start)

    def _step_masks(self, generated: Any, dtype: torch.dtype, device: torch.device) -> Masks:
        """Make the masks for the query of the ``generated``-th generated token over the slots."""
        state, held = self.state, self.tokens(generated, self.state.batch, device)
        zero = torch.zeros(state.batch, 1, dtype=torch.long, device=device)
        query = Tokens(zero + state.length, zero + generated, zero.bool(), zero + state.block, zero)
        return {
            limit: additive_mask(query, held, self.window, dtype, blocks=self.blocks, sliding_window=limit)
            for limit in self.sliding_windows
        }

    def _mask_others(self, masks: Masks, slots: Any) -> Masks:
        """Keep the sequences of a prompt apart; ``slots`` are those of the new tokens."""
        ownership = self.state.ownership
        if ownership is None:
            return masks
        assign(ownership, slots)
        return {limit: mask_others(mask, ownership) for limit, mask in masks.items()}

    def refuse_batch(self, batch: int) -> NoReturn:
        """Raise ValueError for a batch that is not the one held."""
        raise ValueError(
            f"this cache holds {self.state.batch * self.shared} sequence(s) and was given {batch * self.shared}: to "
            "use it for another prompt, call cache.reset() first"
        )

    # --------------------------------------------------------------------------------------------------- afterwards

    def commit(self) -> None:
        """Let the state follow the update, once all layers have."""
        update, self.update, self.updated = self.update, None, 0
        if not isinstance(update, Rebuild):
            self.state.length += 1  # in place where it is a tensor
            self.state.generated += 1
            return
        self.state, self.slots = update.state, update.capacity
        self._settle()

    @torch.compiler.disable
    def _settle(self) -> None:
        """Make the state's tensors ones that change in place, and of a static cache all counters, which then stay."""
        state = self.state
        if self.static:
            state.length = lasting(torch.tensor(state.length, device=state.generated.device))
            if state.conditioning is not None:
                state.conditioning = Tokens(*(part.contiguous() for part in state.conditioning))
        state.each(lasting)
        if self.static:
            block = state.block if isinstance(state.block, Tensor) else None
            pin(state.length, state.generated, state.ring_position, state.ownership, block)

    def each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put ``change(tensor)`` in place of every tensor that has a row for each sequence."""
        state = self.state
        if state.conditioning is not None:
            batch = len(state.conditioning.generated)
            state.conditioning = Tokens(*(part.expand(batch, -1) for part in state.conditioning))
        state.each(lambda part: lasting(change(part)))
        state.full_masks = {}
        if isinstance(state.length, Tensor):
            pin(state.generated, state.ring_position, state.ownership)

    def crop(self, removed: int) -> None:
        """Forget the last ``removed`` generated tokens.

        Raises
        ------
        ValueError
            If a token to restore has left the window, or if it would take away conditioning.
        """
        state = self.state
        most = int(torch.as_tensor(state.generated).max())
        since = int(state.length) - state.rebuilt_length
        if removed > since:
            raise ValueError(
                f"cannot remove {removed} tokens: {since} generated tokens follow the last conditioning; call "
                "cache.reset() and run the prompt again"
            )
        if removed and most > self.window:
            raise ValueError(
                f"cannot rewind: of {most} generated tokens the cache keeps the last {self.window}, and what they "
                "pushed out is gone; keep a copy.deepcopy of the cache to come back to"
            )
        state.length -= removed
        state.generated -= removed
        if state.ring_position is not None:  # what lies where a token will come was not later than the token before it
            state.ring_position.clamp_(max=int(state.length) - 1)

    def count_evicted(self, evicted: Tensor) -> None:
        """Count what left the window elsewhere, [batch, 1]: a layer's own sliding window asks how far back a key is."""
        state, most = self.state, int(evicted.max())
        state.length, state.rebuilt_length = state.length + most, state.rebuilt_length + most
        if state.conditioning is not None:
            state.conditioning.position.add_(most - evicted)
        if state.ring_position is not None:
            state.ring_position.add_(most)
