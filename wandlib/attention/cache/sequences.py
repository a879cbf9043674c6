"""What a cache does to its sequences between passes: reorder, repeat, select, rewind, move."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache

from wandlib.attention.cache.layers import WandLayer
from wandlib.attention.cache.layout import CacheLayout
from wandlib.attention.cache.shared_prompt import reorder
from wandlib.attention.cache.token_kinds import TokenKinds
from wandlib.attention.cache.updates import lasting, pin

ASSISTED = (
    "assisted decoding takes tokens back, which a ring cannot: what they pushed out of the window is gone; leave out "
    "assistant_model / prompt_lookup_num_tokens, or generate under wandlib.full_attention(model)"
)


class SequenceCache(Cache):
    """The part of :class:`~wandlib.WandCache` that is about whole sequences."""

    layers: list[WandLayer]  # type: ignore[assignment]
    layout: CacheLayout
    kinds: TokenKinds

    def __deepcopy__(self, memo: dict[int, Any]) -> SequenceCache:
        """Copy everything; the copy, too, goes on outside of inference mode."""
        memo[id(self)] = made = type(self).__new__(type(self))
        with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
            vars(made).update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return made

    def select(self, index: Int[Tensor, " batch"]) -> None:
        """Make sequence ``index[b]`` the b-th one.

        Raises
        ------
        ValueError
            If prompts are shared: their sequences cannot be taken out of their group.
        """
        if self.layout.state.batch == 0:
            return
        if self.layout.shared > 1:
            raise ValueError(
                f"a cache with shared={self.layout.shared} cannot be expanded or cut, only reordered by a beam search: "
                "leave out shared"
            )

        def pick(state: Tensor) -> Tensor:
            picked = state.index_select(0, index.to(state.device))
            return state.copy_(picked) if self.layout.static and picked.shape == state.shape else picked

        for layer in self.layers:
            layer.each(pick)
        self.layout.each(pick)
        self.layout.state.batch = len(index)
        self.kinds.select(index)

    def reorder_cache(self, beam_idx: Int[Tensor, " batch"]) -> None:
        """Follow a beam search: sequence b goes on from what was sequence ``beam_idx[b]``."""
        if self.layout.state.ownership is None:
            self.select(beam_idx)
        else:
            reorder(self.layout.state.ownership, beam_idx)
            self.kinds.sampled = None  # only of use in a second turn, which a shared prompt does not take

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Hold every sequence ``repeats`` times, copies side by side."""
        self.select(torch.arange(self.layout.state.batch).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Int[Tensor, " batch"]) -> None:
        """Keep only the sequences ``indices``."""
        self.select(indices)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` generated tokens (a negative number, as in transformers).

        Raises
        ------
        ValueError
            If a token to restore has left the window, or if it would take away conditioning.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes minus the number of tokens to remove, got {tokens_to_remove}")
        self.layout.crop(-tokens_to_remove)

    def reset(self) -> None:
        """Forget everything, ready for another prompt; a static cache keeps its buffers."""
        self.layout.reset()
        self.kinds.reset()
        if not self.layout.static:
            for layer in self.layers:
                layer.clear()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> SequenceCache:
        """Move the cache to another device, or its keys and values to another dtype, in place; returns it."""
        for layer in self.layers:
            layer.each(lambda state: state.to(device, dtype if state.is_floating_point() else None))
        self.layout.each(lambda state: state.to(device))
        if isinstance(self.layout.state.length, Tensor):
            self.layout.state.length = lasting(self.layout.state.length.to(device))
            pin(self.layout.state.length)
        return self

    def activate_past_recording(self) -> None:
        """Refuse assisted decoding."""
        raise ValueError(ASSISTED)
