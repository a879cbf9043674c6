"""Any pass but a usual decoding step: prefill, chunks, conditioning in mid-stream, the end of a text block.

Attention reads the slots in use followed by the new entries, under a mask from the rule; then the slots are gathered
anew from both: the conditioning that is still visible, and the last W generated entries.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from wandlib.attention.cache.layout import CacheLayout
from wandlib.attention.cache.shared_prompt import initial_ownership
from wandlib.attention.cache.state import LayoutState
from wandlib.attention.cache.token_kinds import Kinds
from wandlib.attention.cache.updates import Masks, Rebuild
from wandlib.attention.window import PADDING, Tokens, additive_mask, boolean_mask, text_blocks, tokens


class Arrival(NamedTuple):
    """The new tokens of a pass."""

    batch: int
    """Sequences; prompts where they are shared."""
    length: int
    """Tokens of each."""
    kinds: Kinds
    """Which of them are conditioning."""
    padding: Bool[Tensor, "batch length"] | None
    """Which of them are padding; None: none."""
    block: Int[Tensor, "batch length"] | None
    """The text block of each; None: counted from their kinds."""
    dtype: torch.dtype
    """Type of the attention scores."""
    device: torch.device
    """Device of the masks."""


@torch.compiler.disable
def stage_rebuild(layout: CacheLayout, new: Arrival) -> Masks | None:
    """Plan the pass; return its masks, or None: the stock causal mask is right.

    Raises
    ------
    ValueError
        If the batch is not the one that is held, a block or all conditioning exceeds its capacity, generated tokens
        come before all pinned ones, or conditioning that is to be shared follows generated tokens.
    """
    state, start, (conditioning, ended, until_seen) = layout.state, int(layout.state.length), new.kinds
    if state.batch not in (0, new.batch):
        layout.refuse_batch(new.batch)
    if layout.shared > 1:
        _check_shared(layout, conditioning, new.padding)
    after = replace(state, batch=new.batch, conditioning_ended=ended, until_seen=until_seen, full_masks={})
    after.rebuilt_length = start + new.length
    if new.padding is not None:
        after.padding = new.padding.sum(1, keepdim=True) + (0 if state.padding is None else state.padding)
    kinds = conditioning
    if kinds is None:
        kinds = torch.ones(new.batch, new.length, dtype=torch.bool, device=new.device)
    block = _begin_blocks(layout, after, kinds, new.padding, new.block) if layout.expires else None
    if start == 0 and conditioning is None and new.block is None:
        layout.update = _prefill(layout, after, new, block)
        if new.padding is None:
            return None
        prompt = tokens(kinds, new.padding, block=block)
        return {
            limit: additive_mask(prompt, prompt, layout.window, new.dtype, blocks=layout.blocks, sliding_window=limit)
            for limit in layout.sliding_windows
        }
    sequence = tokens(kinds, new.padding, start, state.generated, block=block)
    layout.update, masks = _rebuild(layout, after, sequence, new.dtype)
    return masks


def _prefill(layout: CacheLayout, after: LayoutState, new: Arrival, block: Tensor | None) -> Rebuild:
    """All conditioning, and nothing before it: the slots are the tokens, in order."""
    prefix, held, padding, device = _conditioning_slots(layout, new.length), None, new.padding, new.device
    if padding is not None or prefix > new.length or layout.static or block is not None:
        real = torch.ones(new.batch, new.length, dtype=torch.bool, device=device) if padding is None else ~padding
        real = pad(real, (0, prefix - new.length))
        held = tokens(real, ~real, block=None if block is None else pad(block, (0, prefix - new.length)))
    count = torch.zeros(new.batch, 1, dtype=torch.long, device=device) if layout.static else 0
    ring = torch.zeros(new.batch, layout.window, dtype=torch.long, device=device)
    after = replace(after, length=new.length, generated=count, prefix_tokens=prefix, conditioning=held)
    return _finished(layout, after, read=0, source=None, ring_position=ring)


def _rebuild(layout: CacheLayout, after: LayoutState, new: Tokens, dtype: torch.dtype) -> tuple[Rebuild, Masks]:
    """Attend over the slots in use and the new tokens, then fill the slots with what is still visible."""
    state, device, window, blocks = layout.state, new.position.device, layout.window, layout.blocks
    old = layout.tokens(state.generated, after.batch, device)
    key = Tokens(*(torch.cat(pair, 1) for pair in zip(old, new, strict=True)))
    masks: Masks = {
        limit: additive_mask(new, key, window, dtype, blocks=blocks, sliding_window=limit)
        for limit in layout.sliding_windows
    }
    zero = torch.zeros_like(key.generated[:, :1])
    count = torch.maximum(key.generated.amax(1, keepdim=True), zero + state.generated)
    latest = Tokens(zero + after.rebuilt_length, count, zero.bool(), zero + after.block, zero)
    seen = boolean_mask(latest, key, window, blocks=blocks)[:, 0]
    kept, in_ring = seen & key.conditioning, seen & ~key.conditioning
    rank = kept.cumsum(1)
    prefix = _conditioning_slots(layout, int(rank[:, -1].max()))
    nowhere = prefix + window * layout.shared
    slot = torch.where(in_ring, prefix + (key.generated - 1) % window, nowhere)
    slot = torch.where(kept, rank - 1, slot)
    source = slot.new_zeros(after.batch, nowhere + 1)
    source.scatter_(1, slot, torch.arange(slot.shape[1], device=device).expand_as(slot))
    source = source[:, :nowhere]

    filled = torch.arange(prefix, device=device) < rank[:, -1:]
    position, block = (part.gather(1, source) for part in (key.position, key.block))
    utterance = torch.zeros_like(position[:, :prefix])
    held = Tokens(position[:, :prefix], torch.where(filled, 0, PADDING), filled, block[:, :prefix], utterance)
    ragged = layout.static or bool((count != count[0]).any()) or not bool(filled.all())
    generated = count if ragged else int(count[0])
    source = source if ragged else source[:, : prefix + min(int(count[0]), window)]
    after = replace(after, length=after.rebuilt_length, generated=generated, prefix_tokens=prefix, conditioning=held)
    ring_position, read = position[:, prefix : prefix + window], old.position.shape[1]
    return _finished(layout, after, read=read, source=source, ring_position=ring_position), masks


def _finished(
    layout: CacheLayout, after: LayoutState, *, read: int, source: Tensor | None, ring_position: Tensor
) -> Rebuild:
    """Fill in the rest of the state that a rebuild leads to, and say how to get there."""
    prefix, held, device = after.prefix_tokens, after.conditioning, ring_position.device
    ring = layout.window * layout.shared
    after.has_holes = held is not None and not bool(held.conditioning.all())
    after.ring_position = None if layout.narrowest is None else ring_position
    after.ownership = None
    if layout.shared > 1:
        after.ownership = initial_ownership(after.batch, layout.shared, prefix, ring, device)
    pinned = min(layout.pinned, prefix) if layout.expires else prefix
    stay = source is not None and bool((source[:, :pinned] == torch.arange(pinned, device=device)).all())
    return Rebuild(
        read=read,
        source=source,
        # Where blocks expire, room that the largest blocks needed is kept for the next ones.
        capacity=max(layout.slots, prefix + ring) if layout.expires else prefix + ring,
        pinned=pinned,
        pinned_stay=stay,
        fill_value=0.0 if isinstance(after.generated, Tensor) else float("nan"),
        state=after,
    )


def _conditioning_slots(layout: CacheLayout, needed: int) -> int:
    """Count the conditioning slots to have when ``needed`` of them will be filled."""
    if layout.capacity is None:
        return max(needed, layout.state.prefix_tokens) if layout.static else needed
    if needed <= layout.capacity:
        return layout.capacity
    if layout.block_capacity is None:
        raise ValueError(f"{needed} conditioning tokens do not fit capacity={layout.capacity}: make a cache with more")
    raise ValueError(
        f"{needed} conditioning tokens do not fit pinned={layout.pinned} and {layout.blocks} blocks of "
        f"block_capacity={layout.block_capacity}: split the text, or make a cache with more"
    )


def _begin_blocks(
    layout: CacheLayout, after: LayoutState, kinds: Tensor, padding: Tensor | None, block: Tensor | None
) -> Int[Tensor, "batch length"]:
    """Count the text blocks up to each new token, and note how far the text has come."""
    state, real = layout.state, torch.ones_like(kinds) if padding is None else ~padding
    conditioning, device = kinds & real, kinds.device
    zero = torch.zeros(len(kinds), 1, dtype=torch.long, device=device)
    seen = zero + state.conditioning_seen
    running = seen + conditioning.cumsum(1)
    if bool((~kinds & real & (running < layout.pinned)).any()):
        raise ValueError(
            f"pinned={layout.pinned} conditioning tokens are to come before the first generated one, and "
            f"{int(running.amin())} did: make the cache with as many as the prompt begins with"
        )
    # Tokens after the last rebuild were steps, and generated.
    still_open = torch.as_tensor(state.block_open, device=device) & (int(state.length) <= state.rebuilt_length)
    if block is None:
        begun, interrupted = zero + state.block, zero.bool() | ~still_open
        block = text_blocks(kinds, padding, layout.pinned, seen=seen, begun=begun, interrupted=interrupted)
    index = torch.arange(kinds.shape[1], device=device)
    last_text = index.where(conditioning & (running > layout.pinned), -1).amax(1, keepdim=True)
    last_generated = index.where(~kinds & real, -1).amax(1, keepdim=True)
    after.block_open = (last_text > last_generated) | ((last_generated < 0) & still_open)
    latest = block.masked_fill(~real, 0).amax(1, keepdim=True)  # padding may be numbered in any way
    after.conditioning_seen, after.block = running[:, -1:], torch.maximum(zero + state.block, latest)
    after.conditioning_ended = after.conditioning_ended and bool((after.conditioning_seen >= layout.pinned).all())
    return block


def _check_shared(layout: CacheLayout, kinds: Tensor | None, padding: Tensor | None) -> None:
    """Raise ValueError unless everything up to the end of this pass is the same for those that share a prompt."""
    generated = bool(torch.as_tensor(layout.state.generated).any())
    if kinds is not None:
        generated = generated or not bool((kinds if padding is None else kinds | padding).all())
    if generated:
        raise ValueError(
            f"shared={layout.shared} stores what {layout.shared} sequences have in common, conditioning that comes "
            "before all generated tokens; this pass brings generated tokens, or conditioning after them: leave out "
            "shared"
        )
