"""WandCache: the conditioning stays, a ring of W generated entries rolls.

Keys are cached after the rotary embedding, so the order of the slots does not matter and nothing is ever moved: a
decoding step overwrites the one slot whose token has just left the window, and attends over the P + W slots. Memory and
time per step do not depend on how much has been generated (WAND, arXiv 2604.08558, section 2).

One pass, followed through the files: the hook calls :meth:`WandCache.prepare`, which has it planned by the layout
(which token lies in which slot); the decoder's layers call :meth:`WandCache.update`, which stores and reads; the hook
calls :meth:`WandCache.finish`, which checks that every layer did, and lets the layout follow.
"""

from __future__ import annotations

from typing import Any, SupportsIndex

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from wandlib.attention.cache.layers import Int8Layer, New, Read, WandLayer
from wandlib.attention.cache.layout import CacheLayout
from wandlib.attention.cache.masks import check_continues, check_step, padding_of, with_positions
from wandlib.attention.cache.rebuilding import Arrival, stage_rebuild
from wandlib.attention.cache.sequences import SequenceCache
from wandlib.attention.cache.shared_prompt import check_places, fold_prefill, fold_step, unfold_output
from wandlib.attention.cache.token_kinds import NO_TOKEN, Prompt, TokenKinds
from wandlib.attention.cache.updates import Rebuild
from wandlib.attention.checks import as_converted, check_block, check_blocks, check_conditioning, check_number
from wandlib.attention.models import Decoder, attention_implementation, new_tokens, sliding_windows
from wandlib.attention.window import check_window

UNPLANNED = (
    "a WandCache works with a converted model only: call wandlib.convert(model) first, and under "
    "wandlib.full_attention(model) pass a DynamicCache instead"
)
FLASH = (
    "flash attention takes no mask, which padding, ragged batches, shared prompts, conditioning in mid-stream and "
    "sliding layers need: load the model with attn_implementation='sdpa' (or 'eager'), or give a batch without padding"
)


class WandCache(SequenceCache):
    """Key-value cache of constant size: all conditioning entries and the last ``window`` generated ones.

    Pass it to a converted model as ``past_key_values`` (or ``cache``, its name since transformers 5.24);
    :func:`wandlib.convert` has one made where none is given. Of ``window``, ``conditioning_until``, ``blocks`` and
    ``pinned``, what is left out is as the model was converted (``config.wand``); what is given holds for this decode.

    Parameters
    ----------
    config
        The model's config.
    window
        Generated keys that a query sees, its own included; 32 where ``config`` is not that of a converted model.
    conditioning
        Which tokens of the sequence are conditioning: a number of tokens, a bool tensor [batch or 1, time] that covers
        the first call, or None. What lies past its end is generated. None: the prompt of ``generate``; in a loop of
        one's own the first call, and later ones with several tokens (text that streams in), while a later call with
        one token brings a generated one.
    conditioning_until
        Token id that ends the conditioning, itself included, when the model generates part of it (Spark-TTS's global
        tokens). Needs ``input_ids``. Not together with ``conditioning``, which stands for the converted model's.
    blocks
        How many text blocks stay visible, the one under way included; by default conditioning never expires. A block
        is conditioning between generated tokens.
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
    Source: WAND, arXiv 2604.08558, section 2 (fixed part and rolling part). Gradients flow back through what is held,
    except in a static cache and through int8 entries.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        window: SupportsIndex | float | None = None,
        *,
        conditioning: SupportsIndex | Tensor | None = None,
        conditioning_until: SupportsIndex | float | None = None,
        blocks: SupportsIndex | float | None = None,
        pinned: SupportsIndex | float | None = None,
        static: bool = False,
        capacity: SupportsIndex | float | None = None,
        block_capacity: SupportsIndex | float | None = None,
        int8: bool = False,
        shared: SupportsIndex | float = 1,
    ) -> None:
        window, blocks, pinned = as_converted(config, window=window, blocks=blocks, pinned=pinned)
        if conditioning is None:
            [conditioning_until] = as_converted(config, conditioning_until=conditioning_until)
        keys, (visible_blocks, first) = check_window(32 if window is None else window), check_blocks(blocks, pinned)
        sequences = check_number("shared, the sequences that share a prompt,", shared, 1)
        self.kinds = TokenKinds(conditioning, conditioning_until)
        if (capacity is not None or block_capacity is not None) and not static:
            raise ValueError("capacity is for static=True: any other cache makes room as conditioning comes")
        if block_capacity is not None and (blocks is None or capacity is not None):
            raise ValueError(f"block_capacity={block_capacity!r} is for text blocks: it needs blocks, and no capacity")
        if int8 and (static or (blocks is not None and not first)):
            raise ValueError("int8 is for conditioning that never expires in a cache that is not static: leave it out")
        if sequences > 1 and (conditioning_until is not None or blocks is not None):
            raise ValueError(
                "conditioning that the model generates, or that expires, differs from sequence to sequence: leave out "
                "shared, or conditioning_until and blocks, here or in convert"
            )
        limits = sliding_windows(config)
        sizes: Any = {"capacity": capacity, "block_capacity": block_capacity, "shared": sequences}
        self.layout = CacheLayout(keys, set(limits), blocks=visible_blocks, pinned=first, static=static, **sizes)
        self.watched = self._step_watched = False
        """Whether the hook is to see who reads the masks of this pass, and whether it has once done so in a step."""
        kind = Int8Layer if int8 else WandLayer
        super().__init__(layers=[kind(self.layout) for _ in limits])

    @classmethod
    def adopt(cls, cache: Any, become: WandCache) -> WandCache:
        """Turn an empty DynamicCache into a given WandCache, the same object: whoever made it will pass it again."""
        cache.__class__, cache.__dict__ = cls, become.__dict__
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
        """Keys and values of a layer, each [batch (prompts where shared), kv_heads, slots in use, head_dim]."""
        return self.layers[layer].held(self.layout.used(self.layout.state.generated))

    # ------------------------------------------------------------------------------------------------- a forward pass

    def is_step(self, inputs: dict[str, Any], prompt: Prompt | None = None) -> bool:
        """Whether a pass is a usual decoding step: one generated token of each sequence."""
        return (
            self.layout.state.conditioning_ended
            and new_tokens(inputs).shape[1] == 1
            and inputs.get("conditioning") is None
            and inputs.get("block") is None
            and (prompt is None or prompt.complete or self.kinds.are_told)
        )

    def prepare(self, inputs: dict[str, Any], decoder: Decoder, module: Any, prompt: Prompt | None) -> dict[str, Any]:
        """Plan the pass that is about to start; return the decoder's inputs for it, with its masks.

        Parameters
        ----------
        inputs
            The pass's arguments by name, as :meth:`~wandlib.attention.models.Decoder.keywords` gives them.
        decoder, module
            What is known of the base decoder, and the decoder itself.
        prompt
            The prompt of the ``generate`` under way, if there is one.

        Raises
        ------
        ValueError
            If the tokens do not go on from what is held, or cannot be placed. Nothing has changed then.
        """
        layout, step = self.layout, self.is_step(inputs, prompt)
        if layout.updated and not (step and not isinstance(layout.update, Rebuild)):  # a step can be made again
            raise ValueError("an earlier pass over this cache was interrupted: call cache.reset() and start again")
        layout.update, layout.updated = None, 0
        if self.shared > 1:
            check_places(decoder)
            inputs, rows = with_positions(inputs, decoder, layout.state.length), len(new_tokens(inputs))
            if step:
                inputs = fold_step(inputs, rows, self.shared, layout.state.length)
            else:
                inputs = fold_prefill(inputs, rows, self.shared)
        new = new_tokens(inputs)
        told = inputs.pop("conditioning", None), inputs.pop("block", None)
        if step:
            if prompt is None and self.shared == 1:
                check_step(layout.state.padding, inputs.get("attention_mask"))
            keys = self.layers[0].keys
            masks: Any = layout.stage_step(new.shape[0], keys.dtype, keys.device)
        else:
            masks = self._prepare_rebuild(inputs, told, module, prompt)
        if masks and "flash" in attention_implementation(module):
            raise ValueError(FLASH)
        if not torch.compiler.is_compiling():
            self.watched = bool(masks) and not (step and self._step_watched)
        if masks is not None:
            if masks or layout.state.padding is not None:
                inputs = with_positions(inputs, decoder, layout.state.length)
            inputs["attention_mask"] = decoder.layer_masks(masks)
        return inputs

    def _prepare_rebuild(
        self, inputs: dict[str, Any], told: tuple[Tensor | None, Tensor | None], module: Any, prompt: Prompt | None
    ) -> Any:
        """Plan a prefill, a chunk, conditioning in mid-stream, or a step whose kind is still open."""
        new, (conditioning, block) = new_tokens(inputs), told
        state, (batch, length), start = self.layout.state, new.shape[:2], int(self.layout.state.length)
        mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
        padding = padding_of(mask, batch, start, length, self.layout.sliding_windows, state.padding)
        check_continues(start, self.layout.started(), length, mask, positions, padding)
        if block is not None:
            check_block(block, batch, length, padding, begun=state.block)
        if padding is not None and "flash" in attention_implementation(module):
            raise ValueError(FLASH)
        ids = inputs.get("input_ids")
        if conditioning is not None:
            check_conditioning(conditioning, batch, length)
        if ids is not None and padding is not None:
            ids = ids.masked_fill(padding, NO_TOKEN)
        kinds = self.kinds.of(conditioning, new, start, until_seen=state.until_seen, input_ids=ids, prompt=prompt)
        dtype = next(module.parameters()).dtype
        return stage_rebuild(self.layout, Arrival(batch, length, kinds, padding, block, dtype, new.device))

    def update(
        self, key_states: New, value_states: New, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Read, Read]:
        """Store one layer's new keys and values; return those that attention is to read.

        Raises
        ------
        RuntimeError
            If nothing was planned: the model is not converted, or runs under full attention.
        """
        layout = self.layout
        if layout.update is None:
            raise RuntimeError(UNPLANNED)
        if layer_idx != layout.updated:
            raise RuntimeError(
                f"layer {layer_idx} wrote to the WandCache where layer {layout.updated} was due, so it is not known "
                "who read what: run this model under wandlib.full_attention(model)"
            )
        layout.updated += 1
        return self.layers[layer_idx].apply(layout.update, key_states, value_states)

    def commit(self) -> None:
        """Let the layout follow the update that all layers have followed."""
        self.layout.commit()

    def finish(self, output: Any, decoder: Decoder) -> Any:
        """Check that every layer followed the update, and let the layout follow; return the decoder's output.

        Raises
        ------
        RuntimeError
            If the decoder's layers did not read this cache.
        """
        updated, step = self.layout.updated, not isinstance(self.layout.update, Rebuild)
        if updated != len(self.layers):
            self.layout.update, self.layout.updated = None, 0
            raise RuntimeError(
                f"{decoder.name} ran {updated} of its {len(self.layers)} attention layers on the WandCache that it was "
                f"given as {decoder.cache!r}, so what it returned did not obey the window; it cannot decode under one: "
                "run it under wandlib.full_attention(model), or report its class and your transformers release"
            )
        self.commit()
        if step and not torch.compiler.is_compiling():
            self._step_watched |= self.watched
        return output if self.shared == 1 else unfold_output(output, self.shared, step)
