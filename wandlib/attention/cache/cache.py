"""WandCache: the conditioning stays, a ring of W generated entries rolls.

Keys are cached after the rotary embedding, so the order of the slots does not matter and nothing is ever moved: a
decoding step overwrites the one slot whose token has just left the window, and attends over the P + W slots. Memory and
time per step do not depend on how much has been generated (WAND, arXiv 2604.08558, section 2).

One pass, followed through the files: the hook calls :meth:`WandCache.prepare`, which has it planned by the layout (which
token lies in which slot); the decoder's layers call :meth:`WandCache.update`, which stores and reads; the hook calls
:meth:`WandCache.finish`, which checks that every layer did, and lets the layout follow.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache

from wandlib.attention.cache.layers import Int8Layer, New, Read, WandLayer
from wandlib.attention.cache.layout import CacheLayout
from wandlib.attention.cache.masks import check_continues, padding_of
from wandlib.attention.cache.shared_prompt import fold_prefill, fold_step, reorder, unfold_output
from wandlib.attention.cache.token_kinds import Prompt, TokenKinds
from wandlib.attention.cache.updates import Rebuild, pin
from wandlib.attention.models import Decoder, attention_implementation, new_tokens, sliding_windows
from wandlib.attention.window import check_blocks, check_conditioning, check_window, whole_number

ASSISTED = (
    "assisted decoding takes tokens back, which a ring cannot: what they pushed out of the window is gone; leave out "
    "assistant_model / prompt_lookup_num_tokens, or generate under wandlib.full_attention(model)"
)
UNPLANNED = (
    "a WandCache works with a converted model only: call wandlib.convert(model) first, and under "
    "wandlib.full_attention(model) pass a DynamicCache instead"
)
FLASH = (
    "flash attention takes no mask, which padding, ragged batches, shared prompts, conditioning in mid-stream and "
    "sliding layers need: load the model with attn_implementation='sdpa' (or 'eager'), or give a batch without padding"
)


class WandCache(Cache):
    """Key-value cache of constant size: all conditioning entries and the last ``window`` generated ones.

    Pass it to a converted model as ``past_key_values`` (or ``cache``, its name since transformers 5.24);
    :func:`wandlib.convert` has one made where none is given. Its ``window`` and ``blocks`` hold for this decode,
    whatever the model was converted with.

    Parameters
    ----------
    config
        Of the model.
    window
        Generated keys that a query sees, its own included.
    conditioning
        Which tokens of the sequence are conditioning: a number of tokens, a bool tensor [batch or 1, time] that covers
        the first call, or None. What lies past its end is generated. None: the prompt of ``generate``; in a loop of
        one's own the first call, and later ones with several tokens (text that streams in), while a later call with
        one token brings a generated one.
    conditioning_until
        Token id that ends the conditioning, itself included, when the model generates part of it (Spark-TTS's global
        tokens). Needs ``input_ids``. Not together with ``conditioning``.
    blocks
        How many text blocks stay visible, the one under way included; None: conditioning never expires. A block is
        conditioning between generated tokens.
    pinned
        How many conditioning tokens at the start belong to no block, and never expire.
    static
        Keep every shape fixed and every counter in a tensor, so that :func:`wandlib.compile_step` compiles a decoding
        step once and CUDA graphs can replay it.
    capacity
        Conditioning slots of a static cache, in tokens; by default as many as the prefill needs.
    block_capacity
        Instead, where blocks expire: the longest block, in tokens.
    int8
        Keep conditioning that never expires in int8: about a quarter of its memory in fp32, half in 16 bit, for a
        small error.
    shared
        How many sequences in a row have the same prompt, whose entries are stored once for all of them:
        ``num_beams`` or ``num_return_sequences`` of ``generate``. :mod:`.shared_prompt` says how, and at what price;
        where heads share keys, ``model.set_attn_implementation("grouped_sdpa")`` lowers it.

    Raises
    ------
    ValueError
        If a number is out of range, if options contradict each other, or if a layer of ``config`` is not plain
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
        blocks: int | None = None,
        pinned: int | None = None,
        static: bool = False,
        capacity: int | None = None,
        block_capacity: int | None = None,
        int8: bool = False,
        shared: int = 1,
    ) -> None:
        window, (visible_blocks, first) = check_window(window), check_blocks(blocks, pinned)
        sequences = whole_number(shared)
        if sequences is None or sequences < 1:
            raise ValueError(f"shared is the number of sequences that share a prompt, at least 1; got {shared!r}")
        if conditioning is not None and conditioning_until is not None:
            raise ValueError("give either conditioning or conditioning_until, not both")
        if conditioning is not None and not isinstance(conditioning, Tensor):
            length = whole_number(conditioning)
            if length is None or length < 0:
                raise ValueError(f"conditioning is a number of tokens or a bool tensor; got {conditioning!r}")
            conditioning = length
        if (capacity is not None or block_capacity is not None) and not static:
            raise ValueError("capacity is for static=True: any other cache makes room as conditioning comes")
        if block_capacity is not None and (blocks is None or capacity is not None or block_capacity < 1):
            raise ValueError(
                f"block_capacity={block_capacity!r} is the longest text block: it needs blocks, and no capacity"
            )
        if int8 and static:
            raise ValueError("int8 conditioning is not for a static cache: leave out one of the two")
        if sequences > 1 and (conditioning_until is not None or blocks is not None):
            raise ValueError(
                "conditioning that the model generates, or that expires, differs from sequence to sequence: leave out "
                "shared, or conditioning_until and blocks"
            )
        limits = sliding_windows(config)
        self.layout = CacheLayout(
            window,
            set(limits),
            blocks=visible_blocks,
            pinned=first,
            static=static,
            capacity=capacity,
            block_capacity=block_capacity,
            shared=sequences,
        )
        self.kinds = TokenKinds(conditioning, conditioning_until)
        self._updated = 0
        """Layers that have followed the update under way."""
        kind = Int8Layer if int8 else WandLayer
        super().__init__(layers=[kind(self.layout) for _ in limits])

    @classmethod
    def adopt(cls, cache: Any, config: PreTrainedConfig, window: int, **options: Any) -> WandCache:
        """Turn an empty DynamicCache into a WandCache, the same object: whoever made it will pass it again."""
        cache.__class__ = cls
        cache.__init__(config, window, **options)
        adopted: WandCache = cache
        return adopted

    @property
    def window(self) -> int:
        """Generated keys that a query sees, its own included."""
        return self.layout.window

    @property
    def shared(self) -> int:
        """Sequences that share a prompt."""
        return self.layout.shared

    @property
    def generated(self) -> Any:
        """Generated tokens so far, evicted ones included; per sample, [batch, 1], in a ragged or static cache."""
        return self.layout.state.generated

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held now; constant once the prefill is done (the largest blocks seen)."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def batch_size(self) -> int:
        """Sequences held, or -1 while empty."""
        return self.layout.state.batch * self.shared or -1

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """Tokens seen so far, evicted ones included: positions go on from here."""
        return self.layout.state.length

    def __getitem__(self, layer: int) -> tuple[Read, Read]:
        """Keys and values that layer ``layer`` holds, each [batch, kv_heads, slots in use, head_dim].

        Where prompts are shared, ``batch`` counts prompts.
        """
        return self.layers[layer].held(self.layout.used(self.layout.state.generated))

    # ------------------------------------------------------------------------------------------------- a forward pass

    def is_step(self, inputs: dict[str, Any], prompt: Prompt | None = None) -> bool:
        """Whether a pass is a usual decoding step: one generated token of each sequence."""
        return (
            self.layout.state.conditioning_ended
            and new_tokens(inputs).shape[1] == 1
            and inputs.get("conditioning") is None
            and inputs.get("block") is None
            and (prompt is None or prompt.complete)
        )

    def prepare(self, inputs: dict[str, Any], decoder: Decoder, module: Any, prompt: Prompt | None) -> dict[str, Any]:
        """Plan the pass that is about to start; return the decoder's inputs for it, with its masks.

        Parameters
        ----------
        inputs
            By name, as :meth:`~wandlib.attention.models.Decoder.keywords` gives them.
        decoder, module
            What is known of the base decoder, and the decoder itself.
        prompt
            Of the ``generate`` under way, if there is one.

        Raises
        ------
        ValueError
            If the tokens do not go on from what is held, or cannot be placed. Nothing has changed then.
        """
        layout, step = self.layout, self.is_step(inputs, prompt)
        if self._updated and isinstance(layout.update, Rebuild):
            raise ValueError("an earlier pass over this cache was interrupted: call cache.reset() and start again")
        layout.update, self._updated = None, 0
        if self.shared > 1:
            rows = len(new_tokens(inputs))
            if step:
                inputs = fold_step(inputs, rows, self.shared, layout.state.length)
            else:
                inputs = fold_prefill(inputs, rows, self.shared)
        new = new_tokens(inputs)
        conditioning, block = inputs.pop("conditioning", None), inputs.pop("block", None)
        if step:
            keys = self.layers[0].keys
            masks: Any = layout.stage_step(new.shape[0], keys.dtype, keys.device)
        else:
            masks = self._prepare_rebuild(inputs, new, conditioning, block, module, prompt)
        if masks and "flash" in attention_implementation(module):
            raise ValueError(FLASH)
        if masks is not None:
            inputs["attention_mask"] = decoder.layer_masks(masks)
        return inputs

    def _prepare_rebuild(
        self,
        inputs: dict[str, Any],
        new: Tensor,
        conditioning: Tensor | None,
        block: Tensor | None,
        module: Any,
        prompt: Prompt | None,
    ) -> Any:
        """Plan a prefill, a chunk, conditioning in mid-stream, or a step whose kind is still open."""
        state, (batch, length), start = self.layout.state, new.shape[:2], int(self.layout.state.length)
        mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
        check_continues(start, state.padded, length, mask, positions)
        padding = padding_of(mask, start, length)
        if padding is not None and "flash" in attention_implementation(module):
            raise ValueError(FLASH)
        if conditioning is not None:
            kinds, ended, until_seen = check_conditioning(conditioning, batch, length), True, state.until_seen
            if prompt is not None:
                prompt.take(start, length)
        else:
            kinds, ended, until_seen = self.kinds.of(
                batch,
                start,
                length,
                new.device,
                until_seen=state.until_seen,
                input_ids=inputs.get("input_ids"),
                prompt=prompt,
            )
        dtype = next(module.parameters()).dtype
        return self.layout.stage_rebuild(
            batch, length, kinds, padding, block, ended, until_seen, dtype=dtype, device=new.device
        )

    def update(
        self, key_states: New, value_states: New, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Read, Read]:
        """Store one layer's new keys and values; return those that attention is to read.

        Raises
        ------
        RuntimeError
            If nothing was planned: the model is not converted, or runs under full attention.
        """
        update = self.layout.update
        if update is None:
            raise RuntimeError(UNPLANNED)
        self._updated += 1
        return self.layers[layer_idx].apply(update, key_states, value_states)

    def finish(self, output: Any, decoder: Decoder) -> Any:
        """Check that every layer followed the update, and let the layout follow; return the decoder's output.

        Raises
        ------
        RuntimeError
            If the decoder's layers did not read this cache.
        """
        if self._updated != len(self.layers):
            updated, self.layout.update, self._updated = self._updated, None, 0
            raise RuntimeError(
                f"{decoder.name} ran {updated} of its {len(self.layers)} attention layers on the WandCache that it was "
                f"given as {decoder.cache!r}, so what it returned did not obey the window; it cannot decode under one: "
                "run it under wandlib.full_attention(model), or report its class and your transformers release"
            )
        step = not isinstance(self.layout.update, Rebuild)
        self.layout.commit()
        self._updated = 0
        return output if self.shared == 1 else unfold_output(output, self.shared, step)

    # ------------------------------------------------------------------------------------ beams, batches and rewinding

    def select(self, index: Int[Tensor, " batch"]) -> None:
        """Make sequence ``index[b]`` the b-th one.

        Raises
        ------
        ValueError
            If prompts are shared: their sequences cannot be taken out of their group.
        """
        if self.layout.state.batch == 0:
            return
        if self.shared > 1:
            raise ValueError(
                f"a cache with shared={self.shared} cannot be expanded or cut, only reordered by a beam search: leave "
                "out shared"
            )

        def pick(state: Tensor) -> Tensor:
            picked = state.index_select(0, index.to(state.device))
            return state.copy_(picked) if self.layout.static and picked.shape == state.shape else picked

        for layer in self.layers:
            layer.each(pick)
        self.layout.each(pick)
        self.layout.state.batch = len(index)

    def reorder_cache(self, beam_idx: Int[Tensor, " batch"]) -> None:
        """Follow a beam search: sequence b goes on from what was sequence ``beam_idx[b]``."""
        if self.layout.state.ownership is None:
            self.select(beam_idx)
        else:
            reorder(self.layout.state.ownership, beam_idx)

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
        self.kinds.sampled, self._updated = None, 0
        if not self.layout.static:
            for layer in self.layers:
                layer.clear()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> WandCache:
        """Move the cache to another device, or its keys and values to another dtype, in place; returns it."""
        for layer in self.layers:
            layer.each(lambda state: state.to(device, dtype if state.is_floating_point() else None))
        self.layout.each(lambda state: state.to(device))
        if isinstance(self.layout.state.length, Tensor):
            self.layout.state.length = self.layout.state.length.to(device)
            pin(self.layout.state.length)
        return self

    def activate_past_recording(self) -> None:
        """Refuse assisted decoding."""
        raise ValueError(ASSISTED)
