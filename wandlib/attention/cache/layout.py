"""Which token lies in which slot of the cache, and what the next forward pass does to the slots.

The same for every layer, and worked out once per forward pass, before the first layer runs::

    slots   0 ............ P-1 | P ............ P+W-1
            conditioning       | ring: generated token n (from 0) lies in slot P + n % W

Where N sequences share a prompt, the ring has N slots for each of these (:mod:`wandlib.attention.cache.shared_prompt`). What comes out is a
:mod:`wandlib.attention.cache.updates` for the layers. Which key is visible is decided by :mod:`wandlib.attention.window` alone.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from wandlib.attention.cache.shared_prompt import Own, claim, keep_apart, of_the_prompt
from wandlib.attention.cache.updates import Masks, Plan, pin
from wandlib.attention.window import (
    NEVER,
    Tokens,
    additive_mask,
    conditioning_until,
    fitting,
    prefix_conditioning,
    tokens,
)


class Slots:
    """The tokens that a cache holds, by slot.

    Parameters
    ----------
    window
        Generated keys that a query sees, W.
    limits
        The sliding windows that layers have of their own.
    conditioning, conditioning_until, static, capacity, shared
        As for :class:`wandlib.attention.cache.cache.WandCache`.
    """

    def __init__(
        self,
        window: int,
        limits: set[int | None],
        conditioning: int | Tensor | None,
        conditioning_until: int | None,
        static: bool,
        capacity: int | None,
        shared: int,
    ) -> None:
        self.window, self.limits, self.shared = window, limits, shared
        self.conditioning, self.until = conditioning, conditioning_until
        self.static, self.room = static, capacity
        self.tightest = min((limit for limit in limits if limit is not None), default=None)
        self.plan = Plan()
        self.forget()

    def forget(self) -> None:
        """Hold nothing."""
        self.batch = 0
        """Sequences; prompts where they are shared."""
        self.length: Any = 0
        """Tokens seen so far, padding counted; a tensor [] when static."""
        self.count: Any = 0
        """Generated tokens so far; a tensor [batch, 1] when ragged or static."""
        self.prefix = 0
        """Conditioning slots, P."""
        self.held: Tokens | None = None
        """What lies in the conditioning slots, [batch, P]; None: the first P tokens, none of them padding."""
        self.gaps = False
        """Whether some conditioning slots hold padding or nothing."""
        self.padded = False
        """Whether any padding came in, so that position ids lag behind ``length``."""
        self.ring_position: Tensor | None = None
        """Position of the token in each slot of the ring, [batch, W]; only where a layer has a limit of its own."""
        self.ended: Tensor | None = None
        """Whether ``conditioning_until`` has come, [batch, 1]."""
        self.settled = False
        """Whether every later call of one token brings a generated one."""
        self.rewritten = 0
        """``length`` after the last rewrite: what came later was generated, in every sample."""
        self.full_masks: Masks = {}
        """What a step sees with the ring full; before that it reads fewer columns."""
        self.own: Own | None = None
        """Which slots each sequence reads; only where prompts are shared."""
        self.plan.pending, self.plan.capacity = False, 0

    def used(self, count: Any) -> int:
        """Slots in use once ``count`` tokens are generated; all of them where that differs from sample to sample."""
        return self.prefix + self.shared * (self.window if isinstance(count, Tensor) else min(count, self.window))

    def tokens(self, count: Any, device: torch.device) -> Tokens:
        """Describe the slots in use once ``count`` tokens are generated; an empty slot looks like padding."""
        held = self.held
        if held is None:
            held = tokens(torch.ones(1, self.prefix, dtype=torch.bool, device=device))
        slot = torch.arange((self.used(count) - self.prefix) // self.shared, device=device)[None]
        generated = count - (count - 1 - slot) % self.window  # of the last token that fell into each slot
        generated = torch.where(generated > 0, generated, NEVER)
        # Without limits of their own, layers only need to know that what is held came before the query.
        position = torch.zeros_like(slot) if self.ring_position is None else self.ring_position[:, : slot.shape[1]]
        ring = Tokens(position, generated, torch.zeros_like(slot, dtype=torch.bool))
        if self.shared > 1:
            ring = Tokens(*(part.repeat_interleave(self.shared, 1) for part in ring))
        parts = zip(held, ring, strict=True)
        return Tokens(*(torch.cat([a.expand(self.batch, -1), b.expand(self.batch, -1)], 1) for a, b in parts))

    # ----------------------------------------------------------------------------------------------- a decoding step

    def step(self, batch: int, dtype: torch.dtype, device: torch.device) -> Masks:
        """Plan a usual decoding step: one generated token in each of ``batch`` x ``shared`` sequences.

        Raises
        ------
        ValueError
            If the batch is not the one that is held.
        """
        if batch != self.batch:
            self.refuse(batch)
        plan, count = self.plan, self.count
        plan.pending = True
        index = count % self.window
        if isinstance(count, Tensor):
            first = self.prefix + index * self.shared
            slot = first + torch.arange(self.shared, device=device)
            plan.slots = torch.arange(len(count), device=device)[:, None], slot
            if self.ring_position is not None:
                self.ring_position.scatter_(1, index, torch.zeros_like(index) + self.length)
            return self.apart(self.step_masks(count + 1, dtype, device), slot)
        plan.place, slot = index, self.prefix + index * self.shared
        plan.used = self.used(count + 1)
        if self.tightest is not None and self.ring_position is not None:
            self.ring_position[:, index] = self.length
            if self.length + 1 >= self.tightest:
                return self.apart(self.step_masks(count + 1, dtype, device), slot)
        if not self.gaps and self.own is None:
            return {}
        if not self.full_masks:
            self.full_masks = self.step_masks(self.window, dtype, device)
        masks = {limit: mask[..., : plan.used] for limit, mask in self.full_masks.items()}
        return self.apart(masks, slot)

    def apart(self, masks: Masks, slots: Any) -> Masks:
        """Keep the sequences of a prompt apart; ``slots`` are those of the new tokens."""
        own = self.own
        if own is None:
            return masks
        claim(own, slots)
        return {limit: keep_apart(mask, own) for limit, mask in masks.items()}

    def step_masks(self, count: Any, dtype: torch.dtype, device: torch.device) -> Masks:
        """What the query of the ``count``-th generated token may see of the slots."""
        held = self.tokens(count, device)
        zero = torch.zeros(self.batch, 1, dtype=torch.long, device=device)
        query = Tokens(zero + self.length, zero + count, zero.bool())
        return {limit: additive_mask(query, held, self.window, dtype, limit=limit) for limit in self.limits}

    def refuse(self, batch: int) -> NoReturn:
        """Raise ValueError for a batch that is not the one held."""
        raise ValueError(
            f"this cache holds {self.batch * self.shared} sequence(s) and was given {batch * self.shared}: to use it "
            "for another prompt, call cache.reset() first"
        )

    # --------------------------------------------------------------------------------------------------- a rewrite

    def rewrite(
        self,
        batch: int,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
        conditioning: Tensor | None,
        padding: Bool[Tensor, "batch length"] | None,
        input_ids: Tensor | None,
    ) -> Masks | None:
        """Plan any other pass; None: the stock causal mask is right.

        Raises
        ------
        ValueError
            If the batch is not the one that is held, a conditioning mask does not fit the new tokens, or conditioning
            that is to be shared follows generated tokens.
        """
        if self.batch not in (0, batch):
            self.refuse(batch)
        start, self.batch = int(self.length), batch
        kinds, settled, ended = self.kinds(start, length, device, conditioning, input_ids)
        if self.shared > 1:
            self.check_shared(kinds, padding)
        plan = self.plan
        plan.pending, plan.place, plan.slots, plan.source = True, None, None, None
        plan.after = {"settled": settled, "ended": ended, "rewritten": start + length}
        plan.after["padded"] = self.padded or padding is not None
        if start == 0 and kinds is None:
            self.prefill(length, padding, device)
            return None
        if kinds is None:
            kinds = torch.ones(batch, length, dtype=torch.bool, device=device)
        return self.regather(tokens(kinds, padding, start, self.count), dtype)

    def prefill(self, length: int, padding: Tensor | None, device: torch.device) -> None:
        """All conditioning, and nothing before it: the slots are the tokens, in order."""
        prefix, held = self.conditioning_slots(length), None
        if padding is not None or prefix > length or self.static:
            real = torch.ones(self.batch, length, dtype=torch.bool, device=device) if padding is None else ~padding
            real = pad(real, (0, prefix - length))
            held = tokens(real, ~real)
        count = torch.zeros(self.batch, 1, dtype=torch.long, device=device) if self.static else 0
        ring = torch.zeros(self.batch, self.window, dtype=torch.long, device=device)
        self.plan.used = 0
        self.foresee(length, count, prefix, held, ring)

    def regather(self, new: Tokens, dtype: torch.dtype) -> Masks:
        """Attend over the slots in use and the new tokens, then fill the slots from both."""
        plan, device, window = self.plan, new.position.device, self.window
        old = self.tokens(self.count, device)
        plan.used = old.position.shape[1]
        key = Tokens(*(torch.cat(pair, 1) for pair in zip(old, new, strict=True)))
        masks: Masks = {limit: additive_mask(new, key, window, dtype, limit=limit) for limit in self.limits}

        count = torch.maximum(key.generated.amax(1, keepdim=True), torch.zeros_like(key.generated[:, :1]) + self.count)
        rank = key.conditioning.cumsum(1)
        prefix = self.conditioning_slots(int(rank[:, -1].max()))
        nowhere = prefix + window * self.shared
        in_ring = ~key.conditioning & (count - key.generated < window)
        slot = torch.where(in_ring, prefix + (key.generated - 1) % window, nowhere)
        slot = torch.where(key.conditioning, rank - 1, slot)
        source = slot.new_zeros(self.batch, nowhere + 1)
        source.scatter_(1, slot, torch.arange(slot.shape[1], device=device).expand_as(slot))
        source = source[:, :nowhere]

        filled = torch.arange(prefix, device=device) < rank[:, -1:]
        position = key.position.gather(1, source)
        held = Tokens(position[:, :prefix], torch.where(filled, 0, NEVER), filled)
        ragged = self.static or bool((count != count[0]).any()) or not bool(filled.all())
        after = count if ragged else int(count[0])
        plan.source = source if ragged else source[:, : prefix + min(int(count[0]), window)]
        self.foresee(plan.after["rewritten"], after, prefix, held, position[:, prefix : prefix + window])
        return masks

    def conditioning_slots(self, needed: int) -> int:
        """How many conditioning slots to have when ``needed`` of them will be filled."""
        if self.room is None:
            return max(needed, self.prefix) if self.static else needed
        if needed > self.room:
            raise ValueError(f"{needed} conditioning tokens do not fit capacity={self.room}: make a cache with more")
        return self.room

    def foresee(self, length: int, count: Any, prefix: int, held: Tokens | None, ring_position: Tensor) -> None:
        """Note the state that a rewrite leads to."""
        ring, device = self.window * self.shared, ring_position.device
        self.plan.prefix, self.plan.capacity = prefix, prefix + ring
        self.plan.fill = 0.0 if isinstance(count, Tensor) else float("nan")
        self.plan.after |= {
            "length": length,
            "count": count,
            "prefix": prefix,
            "held": held,
            "gaps": held is not None and not bool(held.conditioning.all()),
            "ring_position": None if self.tightest is None else ring_position,
            "full_masks": {},
            "own": None if self.shared == 1 else of_the_prompt(self.batch, self.shared, prefix, ring, device),
        }

    def check_shared(self, kinds: Tensor | None, padding: Tensor | None) -> None:
        """Raise ValueError unless everything up to the end of this pass is the same for those that share a prompt."""
        generated = bool(torch.as_tensor(self.count).any())
        if kinds is not None:
            generated = generated or not bool((kinds if padding is None else kinds | padding).all())
        if generated:
            raise ValueError(
                f"shared={self.shared} stores what {self.shared} sequences have in common, conditioning that comes "
                "before all generated tokens; this pass brings generated tokens, or conditioning after them: leave out "
                "shared"
            )

    def kinds(
        self, start: int, length: int, device: torch.device, conditioning: Tensor | None, input_ids: Tensor | None
    ) -> tuple[Bool[Tensor, "batch length"] | None, bool, Tensor | None]:
        """Which new tokens are conditioning (None: all), whether that is settled from here on, where it has ended."""
        batch, end, given = self.batch, start + length, self.conditioning
        if conditioning is not None:
            return fitting(conditioning, batch, length), True, self.ended
        if isinstance(given, int):
            rest = torch.tensor([given - start], device=device)
            kinds = None if end <= given else prefix_conditioning(rest, length).expand(batch, -1)
            return kinds, end >= given, None
        if given is not None:
            if given.ndim != 2 or given.shape[0] not in (1, batch) or (start == 0 and given.shape[1] < length):
                fitting(given, batch, length)
            known = given[:, start:end].to(device)
            kinds = pad(known, (0, length - known.shape[1])).expand(batch, -1)
            return fitting(kinds, batch, length), end >= given.shape[1], None
        if self.until is not None:
            if input_ids is None:
                raise ValueError("conditioning_until needs input_ids; with inputs_embeds give the conditioning itself")
            ended = torch.zeros(batch, 1, dtype=torch.bool, device=device) if self.ended is None else self.ended
            kinds = conditioning_until(input_ids, self.until) & ~ended
            ended = ended | (input_ids == self.until).any(1, keepdim=True)
            return kinds, bool(ended.all()), ended
        return None, True, None

    # ------------------------------------------------------------------------------------------------- afterwards

    def commit(self) -> None:
        """Let the state follow the plan. Not before the first layer: until then the model reads the old length."""
        plan = self.plan
        plan.pending = False
        if plan.step:
            self.length += 1  # in place where it is a tensor
            self.count += 1
            return
        for name, value in plan.after.items():
            setattr(self, name, value)
        if self.static and self.held is not None:
            self.length = torch.tensor(self.length, device=self.count.device)
            self.held = Tokens(*(part.contiguous() for part in self.held))
            pin(self.length, self.count, self.ring_position, self.own)

    def each(self, change: Any) -> None:
        """Put ``change(tensor)`` in place of every tensor that has a row for each sequence."""
        if isinstance(self.count, Tensor):
            self.count = change(self.count)
        if self.held is not None:
            batch = len(self.held.generated)
            self.held = Tokens(*(change(part.expand(batch, -1)) for part in self.held))
        self.ring_position = None if self.ring_position is None else change(self.ring_position)
        self.ended = None if self.ended is None else change(self.ended)
        self.own = None if self.own is None else change(self.own)
        self.full_masks = {}
        if isinstance(self.length, Tensor):
            pin(self.count, self.ring_position, self.own)

    def crop(self, removed: int) -> None:
        """Forget the last ``removed`` generated tokens.

        Raises
        ------
        ValueError
            If a token to restore has left the window, or if it would take away conditioning.
        """
        most = int(torch.as_tensor(self.count).max())
        since = int(self.length) - self.rewritten
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
        self.length -= removed
        self.count -= removed
