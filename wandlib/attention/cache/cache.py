"""WandCache: the conditioning stays, a ring of W generated entries rolls.

Keys are cached after the rotary embedding, so the order of the slots does not matter and nothing is ever moved: a
decoding step overwrites the one slot whose token has just left the window, and attends over the P + W slots. Memory and
time per step do not depend on how much has been generated (WAND, arXiv 2604.08558, section 2).

:mod:`wandlib.attention.cache.layout` knows which token lies in which slot, :mod:`wandlib.attention.cache.layers` stores. The forward pre-hook of
:mod:`wandlib.attention.hook` has each forward pass planned before the first layer runs.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache

from wandlib.attention.cache.layers import Int8Layer, New, Read, WandLayer
from wandlib.attention.cache.layout import Slots
from wandlib.attention.cache.shared_prompt import reorder
from wandlib.attention.cache.updates import Masks, pin
from wandlib.attention.window import check_window, own_limits

ASSISTED = (
    "assisted decoding takes tokens back, which a ring cannot: what they pushed out of the window is gone; leave out "
    "assistant_model / prompt_lookup_num_tokens, or generate under wandlib.full_attention(model)"
)
UNPLANNED = (
    "a WandCache works with a converted model only: call wandlib.convert(model) first, and under "
    "wandlib.full_attention(model) pass a DynamicCache instead"
)


class WandCache(Cache):
    """Key-value cache of constant size: all conditioning entries and the last ``window`` generated ones.

    Pass it to a converted model as ``past_key_values``; :func:`wandlib.attention.conversion.convert` has one made where none is
    given. Its ``window`` rules for this decode, whatever the model was converted with.

    Parameters
    ----------
    config
        Of the model.
    window
        Generated keys that a query sees, its own included.
    conditioning
        Which tokens of the sequence are conditioning: a number of tokens, a bool tensor [batch or 1, time] that covers
        the first call, or None. What lies past its end is generated. None: a call with several tokens brings
        conditioning (the prefill, its chunks, text that streams in later), a later call with one token brings a
        generated one.
    conditioning_until
        Token id that ends the conditioning, itself included, when the model generates part of it (Spark-TTS's global
        tokens). Needs ``input_ids``. Not together with ``conditioning``.
    static
        Keep every shape fixed and every counter in a tensor, so that :func:`wandlib.compile_step` compiles a decoding
        step once and CUDA graphs can replay it.
    capacity
        Conditioning slots of a static cache, in tokens; by default as many as the prefill needs.
    int8
        Keep the conditioning in int8: about a quarter of its memory in fp32, half in 16 bit, for a small error.
    shared
        How many sequences in a row have the same prompt, whose entries are stored once for all of them:
        ``num_beams`` or ``num_return_sequences`` of ``generate``. :mod:`wandlib.attention.cache.shared_prompt` says how, and at what price.
        Where heads share keys, ``model.set_attn_implementation("grouped_sdpa")`` lowers it.

    Raises
    ------
    ValueError
        If ``window`` or ``shared`` < 1, if options contradict each other, or if a layer of ``config`` is not plain
        attention.

    Notes
    -----
    Source: WAND, arXiv 2604.08558, section 2 (fixed part and rolling part).
    """

    layers: list[WandLayer]  # type: ignore[assignment]

    def __init__(
        self,
        config: PreTrainedConfig,
        window: int = 32,
        *,
        conditioning: int | Tensor | None = None,
        conditioning_until: int | None = None,
        static: bool = False,
        capacity: int | None = None,
        int8: bool = False,
        shared: int = 1,
    ) -> None:
        check_window(window)
        if not isinstance(shared, int) or isinstance(shared, bool) or shared < 1:
            raise ValueError(f"shared is the number of sequences that share a prompt, at least 1; got {shared!r}")
        if conditioning is not None and conditioning_until is not None:
            raise ValueError("give either conditioning or conditioning_until, not both")
        if capacity is not None and not static:
            raise ValueError("capacity is for static=True: any other cache makes room as conditioning comes")
        if int8 and static:
            raise ValueError("int8 conditioning is not for a static cache: leave out one of the two")
        if shared > 1 and conditioning_until is not None:
            raise ValueError(
                "conditioning that the model generates differs from sequence to sequence: leave out shared or "
                "conditioning_until"
            )
        limits = own_limits(config)
        self.slots = Slots(window, set(limits), conditioning, conditioning_until, static, capacity, shared)
        kind = Int8Layer if int8 else WandLayer
        super().__init__(layers=[kind(self.slots.plan, static) for _ in limits])

    @property
    def window(self) -> int:
        """Generated keys that a query sees, its own included."""
        return self.slots.window

    @property
    def shared(self) -> int:
        """Sequences that share a prompt."""
        return self.slots.shared

    @property
    def generated(self) -> Any:
        """Generated tokens so far, evicted ones included; per sample, [batch, 1], in a ragged or static cache."""
        return self.slots.count

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held now; constant once the prefill is done, whatever is generated."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def batch_size(self) -> int:
        """Sequences held, or -1 while empty."""
        return self.slots.batch * self.shared or -1

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """Tokens seen so far, evicted ones included: positions go on from here."""
        return self.slots.length

    def __getitem__(self, layer: int) -> tuple[Read, Read]:
        """Keys and values that layer ``layer`` holds, each [batch, kv_heads, slots in use, head_dim].

        Where prompts are shared, ``batch`` counts prompts.
        """
        return self.layers[layer].held(self.slots.used(self.slots.count))

    # ------------------------------------------------------------------------------------------------- a forward pass

    def plan_step(self, batch: int) -> Masks:
        """Plan a usual decoding step; the masks that it needs, by own limit of the layers."""
        keys = self.layers[0].keys
        return self.slots.step(batch, keys.dtype, keys.device)

    def plan_rewrite(
        self,
        batch: int,
        length: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        conditioning: Tensor | None = None,
        padding: Tensor | None = None,
        input_ids: Tensor | None = None,
    ) -> Masks | None:
        """Plan any other pass over ``batch`` x ``length`` new tokens; None: the stock causal mask is right.

        Parameters
        ----------
        dtype, device
            Of the attention scores.
        conditioning
            Which of the new tokens are conditioning, a bool each; overrides what the cache was made with.
        padding
            Which of the new tokens are padding; None: none of them.
        input_ids
            The new tokens; only ``conditioning_until`` looks at them.
        """
        return self.slots.rewrite(batch, length, dtype, device, conditioning, padding, input_ids)

    def update(
        self, key_states: New, value_states: New, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Read, Read]:
        """Store one layer's new keys and values; return those that attention is to read.

        Raises
        ------
        RuntimeError
            If nothing was planned: the model is not converted, or runs under full attention.
        """
        if layer_idx == 0:
            if not self.slots.plan.pending:
                raise RuntimeError(UNPLANNED)
            self.slots.commit()
        return self.layers[layer_idx].update(key_states, value_states)

    # ------------------------------------------------------------------------------------ beams, batches and rewinding

    def select(self, index: Int[Tensor, " batch"]) -> None:
        """Make sequence ``index[b]`` the b-th one.

        Raises
        ------
        ValueError
            If prompts are shared: their sequences cannot be taken out of their group.
        """
        if self.slots.batch == 0:
            return
        if self.shared > 1:
            raise ValueError(
                f"a cache with shared={self.shared} cannot be expanded or cut, only reordered by a beam search: leave "
                "out shared"
            )

        def pick(state: Tensor) -> Tensor:
            picked = state.index_select(0, index.to(state.device))
            return state.copy_(picked) if self.slots.static and picked.shape == state.shape else picked

        for layer in self.layers:
            layer.each(pick)
        self.slots.each(pick)
        self.slots.batch = len(index)

    def reorder_cache(self, beam_idx: Int[Tensor, " batch"]) -> None:
        """Follow a beam search: sequence b goes on from what was sequence ``beam_idx[b]``."""
        if self.slots.own is None:
            self.select(beam_idx)
        else:
            reorder(self.slots.own, beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Hold every sequence ``repeats`` times, copies side by side."""
        self.select(torch.arange(self.slots.batch).repeat_interleave(repeats))

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
        self.slots.crop(-tokens_to_remove)

    def reset(self) -> None:
        """Forget everything, ready for another prompt; a static cache keeps its buffers."""
        self.slots.forget()
        if not self.slots.static:
            for layer in self.layers:
                layer.clear()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> WandCache:
        """Move the cache to another device, or its keys and values to another dtype, in place; returns it."""
        for layer in self.layers:
            layer.each(lambda state: state.to(device, dtype if state.is_floating_point() else None))
        self.slots.each(lambda state: state.to(device))
        if isinstance(self.slots.length, Tensor):
            self.slots.length = self.slots.length.to(device)
            pin(self.slots.length)
        return self

    def activate_past_recording(self) -> None:
        """Refuse assisted decoding."""
        raise ValueError(ASSISTED)
