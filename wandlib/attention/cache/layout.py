"""Which token lies in which slot of the cache, and what the next forward pass does to the slots.

The same for every layer, and worked out once per forward pass, before the first layer runs::

    slots   0 ............ P-1 | P ............ P+W-1
            conditioning       | ring: generated token n (from 0) lies in slot P + n % W

Where text blocks expire, their slots are taken by the next ones and P follows. Where N sequences share a prompt, the
ring has N slots for each of these (:mod:`.shared_prompt`). What comes out is one of the :mod:`.updates` for the layers,
and the masks of the pass. Which key is visible is decided by :mod:`wandlib.attention.window` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from wandlib.attention.cache.shared_prompt import Ownership, assign, initial_ownership, mask_others
from wandlib.attention.cache.updates import Masks, Rebuild, RingWrite, ScatterWrite, Update, pin
from wandlib.attention.window import PADDING, UNBOUNDED, Tokens, additive_mask, boolean_mask, text_blocks, tokens


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
    padded               bool                    whether any padding came in, so that position ids lag behind length
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
    padded: bool = False
    ring_position: Tensor | None = None
    conditioning_seen: Any = 0
    block: Any = 0
    block_open: Any = False
    conditioning_ended: bool = False
    until_seen: Tensor | None = None
    rebuilt_length: int = 0
    ownership: Ownership | None = None
    full_masks: Masks = field(default_factory=dict)


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
        capacity: int | None = None,
        block_capacity: int | None = None,
        shared: int = 1,
    ) -> None:
        self.window, self.blocks, self.pinned, self.shared = window, blocks, pinned, shared
        self.sliding_windows, self.static = sliding_windows, static
        self.block_capacity = block_capacity
        self.capacity = capacity if block_capacity is None else pinned + blocks * block_capacity
        self.narrowest = min((limit for limit in sliding_windows if limit is not None), default=None)
        self.reset()

    def reset(self) -> None:
        """Hold nothing."""
        self.state = LayoutState()
        self.update: Update | None = None
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

    def mask_length(self, query_length: int) -> int:
        """Count the keys that attention reads in the pass under way, or that `generate` should prepare a mask for."""
        update = self.update
        if isinstance(update, RingWrite):
            return update.used
        if isinstance(update, Rebuild):
            return update.read + query_length
        if update is None and not (query_length == 1 and self.state.conditioning_ended):
            return int(self.state.length) + query_length  # the whole sequence: its columns say what is padding
        return self.slots if update is not None else self.slots + query_length

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
            self.update = ScatterWrite(torch.arange(len(count), device=device)[:, None], slots)
            if state.ring_position is not None:
                state.ring_position.scatter_(1, index, torch.zeros_like(index) + state.length)
            return self._mask_others(self._step_masks(count + 1, dtype, device), slots)
        used, start = self.used(count + 1), state.prefix_tokens + index * self.shared
        self.update = RingWrite(index, start, used)
        if self.narrowest is not None and state.ring_position is not None:
            state.ring_position[:, index] = state.length
            if state.length + 1 >= self.narrowest:
                return self._mask_others(self._step_masks(count + 1, dtype, device), start)
        if not state.has_holes and state.ownership is None:
            return {}
        if not state.full_masks:
            state.full_masks = self._step_masks(self.window, dtype, device)
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

    # ------------------------------------------------------------------------------------------------------ a rebuild

    @torch.compiler.disable
    def stage_rebuild(
        self,
        batch: int,
        length: int,
        kinds: Bool[Tensor, "batch length"] | None,
        padding: Bool[Tensor, "batch length"] | None,
        block: Int[Tensor, "batch length"] | None,
        ended: bool,
        until_seen: Tensor | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Masks | None:
        """Plan any other pass over ``batch`` x ``length`` new tokens; None: the stock causal mask is right.

        Parameters
        ----------
        kinds
            Which new tokens are conditioning; None: all.
        block
            The text block of each new token; None: counted from ``kinds``.
        ended, until_seen
            The state's ``conditioning_ended`` and ``until_seen`` after this pass.

        Raises
        ------
        ValueError
            If the batch is not the one that is held, a block or all conditioning exceeds its capacity, generated
            tokens come before all pinned ones, or conditioning that is to be shared follows generated tokens.
        """
        state, start = self.state, int(self.state.length)
        if state.batch not in (0, batch):
            self.refuse_batch(batch)
        if self.shared > 1:
            self._check_shared(kinds, padding)
        after = replace(state, batch=batch, conditioning_ended=ended, until_seen=until_seen, full_masks={})
        after.rebuilt_length = start + length
        after.padded = state.padded or padding is not None
        all_new = torch.ones(batch, length, dtype=torch.bool, device=device) if kinds is None else kinds
        if self.expires:
            block = self._begin_blocks(after, all_new, padding, block)
        if start == 0 and kinds is None:
            self.update = self._prefill(after, length, padding, block, device)
            return None
        self.update, masks = self._rebuild(after, tokens(all_new, padding, start, state.generated, block=block), dtype)
        return masks

    def _begin_blocks(
        self, after: LayoutState, kinds: Tensor, padding: Tensor | None, block: Tensor | None
    ) -> Int[Tensor, "batch length"]:
        """Number the text blocks of the new tokens, and note how far the text has come."""
        state, real = self.state, torch.ones_like(kinds) if padding is None else ~padding
        conditioning, device = kinds & real, kinds.device
        zero = torch.zeros(len(kinds), 1, dtype=torch.long, device=device)
        seen = zero + state.conditioning_seen
        running = seen + conditioning.cumsum(1)
        if bool((~kinds & real & (running < self.pinned)).any()):
            raise ValueError(
                f"pinned={self.pinned} conditioning tokens are to come before the first generated one, and "
                f"{int(running.amin(1)[0])} did: make the cache with as many as the prompt begins with"
            )
        if block is None:
            stepped = int(state.length) > state.rebuilt_length  # each of them generated
            interrupted = zero.bool() | ~(torch.as_tensor(state.block_open, device=device) & (not stepped))
            block = text_blocks(
                kinds, padding, self.pinned, seen=seen, begun=zero + state.block, interrupted=interrupted
            )
        index = torch.arange(kinds.shape[1], device=device)
        last_text = index.where(conditioning & (running > self.pinned), -1).amax(1, keepdim=True)
        last_generated = index.where(~kinds & real, -1).amax(1, keepdim=True)
        still_open = torch.as_tensor(state.block_open, device=device) & (int(state.length) <= state.rebuilt_length)
        after.block_open = (last_text > last_generated) | ((last_generated < 0) & still_open)
        after.conditioning_seen, after.block = running[:, -1:], block[:, -1:]
        after.conditioning_ended = after.conditioning_ended and bool((after.conditioning_seen >= self.pinned).all())
        return block

    def _prefill(
        self, after: LayoutState, length: int, padding: Tensor | None, block: Tensor | None, device: torch.device
    ) -> Rebuild:
        """All conditioning, and nothing before it: the slots are the tokens, in order."""
        prefix, held, batch = self.conditioning_slots(length), None, after.batch
        if padding is not None or prefix > length or self.static or block is not None:
            real = torch.ones(batch, length, dtype=torch.bool, device=device) if padding is None else ~padding
            real = pad(real, (0, prefix - length))
            held = tokens(real, ~real, block=None if block is None else pad(block, (0, prefix - length)))
        count = torch.zeros(batch, 1, dtype=torch.long, device=device) if self.static else 0
        ring = torch.zeros(batch, self.window, dtype=torch.long, device=device)
        return self._finished(after, 0, None, length, count, prefix, held, ring)

    def _rebuild(self, after: LayoutState, new: Tokens, dtype: torch.dtype) -> tuple[Rebuild, Masks]:
        """Attend over the slots in use and the new tokens, then fill the slots with what is still visible."""
        state, device, window = self.state, new.position.device, self.window
        old = self.tokens(state.generated, after.batch, device)
        key = Tokens(*(torch.cat(pair, 1) for pair in zip(old, new, strict=True)))
        masks: Masks = {
            limit: additive_mask(new, key, window, dtype, blocks=self.blocks, sliding_window=limit)
            for limit in self.sliding_windows
        }
        zero = torch.zeros_like(key.generated[:, :1])
        count = torch.maximum(key.generated.amax(1, keepdim=True), zero + state.generated)
        latest = Tokens(zero + after.rebuilt_length, count, zero.bool(), zero + after.block, zero)
        seen = boolean_mask(latest, key, window, blocks=self.blocks)[:, 0]
        kept, in_ring = seen & key.conditioning, seen & ~key.conditioning
        rank = kept.cumsum(1)
        prefix = self.conditioning_slots(int(rank[:, -1].max()))
        nowhere = prefix + window * self.shared
        slot = torch.where(in_ring, prefix + (key.generated - 1) % window, nowhere)
        slot = torch.where(kept, rank - 1, slot)
        source = slot.new_zeros(after.batch, nowhere + 1)
        source.scatter_(1, slot, torch.arange(slot.shape[1], device=device).expand_as(slot))
        source = source[:, :nowhere]

        filled = torch.arange(prefix, device=device) < rank[:, -1:]
        position, block = (part.gather(1, source) for part in (key.position, key.block))
        utterance = torch.zeros_like(position[:, :prefix])
        count_of_filled = torch.where(filled, 0, PADDING)
        held = Tokens(position[:, :prefix], count_of_filled, filled, block[:, :prefix], utterance)
        ragged = self.static or bool((count != count[0]).any()) or not bool(filled.all())
        generated = count if ragged else int(count[0])
        source = source if ragged else source[:, : prefix + min(int(count[0]), window)]
        ring_position = position[:, prefix : prefix + window]
        read = old.position.shape[1]
        return self._finished(after, read, source, after.rebuilt_length, generated, prefix, held, ring_position), masks

    def conditioning_slots(self, needed: int) -> int:
        """Count the conditioning slots to have when ``needed`` of them will be filled."""
        if self.capacity is None:
            return max(needed, self.state.prefix_tokens) if self.static else needed
        if needed > self.capacity:
            if self.block_capacity is not None:
                raise ValueError(
                    f"{needed} conditioning tokens do not fit pinned={self.pinned} and {self.blocks} blocks of "
                    f"block_capacity={self.block_capacity}: split the text, or make a cache with more"
                )
            raise ValueError(
                f"{needed} conditioning tokens do not fit capacity={self.capacity}: make a cache with more"
            )
        return self.capacity

    def _finished(
        self,
        after: LayoutState,
        read: int,
        source: Tensor | None,
        length: int,
        generated: Any,
        prefix: int,
        held: Tokens | None,
        ring_position: Tensor,
    ) -> Rebuild:
        """Fill in the state that a rebuild leads to, and say how to get there."""
        ring, device = self.window * self.shared, ring_position.device
        after.length, after.generated, after.prefix_tokens, after.conditioning = length, generated, prefix, held
        after.has_holes = held is not None and not bool(held.conditioning.all())
        after.ring_position = None if self.narrowest is None else ring_position
        after.ownership = None
        if self.shared > 1:
            after.ownership = initial_ownership(after.batch, self.shared, prefix, ring, device)
        pinned = min(self.pinned, prefix) if self.expires else prefix
        stay = source is not None and bool((source[:, :pinned] == torch.arange(pinned, device=device)).all())
        return Rebuild(
            read=read,
            source=source,
            # Where blocks expire, room that the largest blocks needed is kept for the next ones.
            capacity=max(self.slots, prefix + ring) if self.expires else prefix + ring,
            pinned=pinned,
            pinned_stay=stay,
            fill_value=0.0 if isinstance(generated, Tensor) else float("nan"),
            state=after,
        )

    # ----------------------------------------------------------------------------------------------------- refusals

    def refuse_batch(self, batch: int) -> NoReturn:
        """Raise ValueError for a batch that is not the one held."""
        raise ValueError(
            f"this cache holds {self.state.batch * self.shared} sequence(s) and was given {batch * self.shared}: to "
            "use it for another prompt, call cache.reset() first"
        )

    def _check_shared(self, kinds: Tensor | None, padding: Tensor | None) -> None:
        """Raise ValueError unless everything up to the end of this pass is the same for those that share a prompt."""
        generated = bool(torch.as_tensor(self.state.generated).any())
        if kinds is not None:
            generated = generated or not bool((kinds if padding is None else kinds | padding).all())
        if generated:
            raise ValueError(
                f"shared={self.shared} stores what {self.shared} sequences have in common, conditioning that comes "
                "before all generated tokens; this pass brings generated tokens, or conditioning after them: leave out "
                "shared"
            )

    # --------------------------------------------------------------------------------------------------- afterwards

    def commit(self) -> None:
        """Let the state follow the update, once all layers have."""
        update, self.update = self.update, None
        if not isinstance(update, Rebuild):
            self.state.length += 1  # in place where it is a tensor
            self.state.generated += 1
            return
        self.state, self.slots = update.state, update.capacity
        if self.static:
            self._pin()

    @torch.compiler.disable
    def _pin(self) -> None:
        """Make a tensor of every counter of a static cache, and promise that it stays where it is."""
        state = self.state
        state.length = torch.tensor(state.length, device=state.generated.device)
        if state.conditioning is not None:
            state.conditioning = Tokens(*(part.contiguous() for part in state.conditioning))
        block = state.block if isinstance(state.block, Tensor) else None
        pin(state.length, state.generated, state.ring_position, state.ownership, block)

    def each(self, change: Any) -> None:
        """Put ``change(tensor)`` in place of every tensor that has a row for each sequence."""
        state = self.state
        for name in (
            "generated",
            "ring_position",
            "conditioning_seen",
            "block",
            "block_open",
            "until_seen",
            "ownership",
        ):
            if isinstance(value := getattr(state, name), Tensor):
                setattr(state, name, change(value))
        if state.conditioning is not None:
            batch = len(state.conditioning.generated)
            state.conditioning = Tokens(*(change(part.expand(batch, -1)) for part in state.conditioning))
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
