"""Computed costs of attention: cache bytes and FLOPs of any config, with full attention and with a window.

With P conditioning and T generated tokens, full attention caches P + T entries a layer, the window P + min(T, W), so
that

    reduction = 1 - (P + W) / (P + T) = (T - W) / (P + T)

Where text blocks expire, P is what is pinned and the largest sum of neighboring blocks that were visible at once. An
entry is a key and a value of each key-value head; with multi-head latent attention (DeepSeek-V2), what all heads'
keys and values are made of.

FLOPs count the two products of attention, Q K^T and A V, over the decoding steps: 2 x heads x (width of a key + width
of a value) for every pair of a query and a key that it sees, the query's own included; projections (those of a latent
to keys and values, too), softmax and the prefill do not count. This definition reproduces the paper's numbers for
IndexTTS 1.5 (arXiv 2604.08558, table 1) within 3 %: 6.28 and 3.35 GFLOPs at P = 79, T = 250 against the published 6.18
and 3.28.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import torch
from transformers import PreTrainedConfig

from wandlib.attention.checks import check_blocks, check_number
from wandlib.attention.models import layer_configs, sliding_windows
from wandlib.attention.window import UNBOUNDED, check_window


def head_shape(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Return the numbers of heads and of key-value heads, and the dimension of a head."""
    text = config.get_text_config(decoder=True)
    heads = text.num_attention_heads
    one = getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False)  # Falcon
    key_value_heads = getattr(text, "num_key_value_heads", None) or (1 if one else heads)
    return heads, key_value_heads, getattr(text, "head_dim", None) or text.hidden_size // heads


class LayerCosts(NamedTuple):
    """What the costs of a layer depend on."""

    limit: int | None
    """The sliding window that it has of its own, in tokens."""
    entry: int
    """Numbers that it caches of a token."""
    pair: int
    """Multiplications, and as many additions, for a query and a key that it sees."""


def layer_costs(config: PreTrainedConfig) -> list[LayerCosts]:
    """Return what the costs of each layer depend on.

    Raises
    ------
    ValueError
        If the config does not tell, or a layer is not plain attention.
    """
    text = config.get_text_config(decoder=True)
    layers: list[LayerCosts] = []
    heads_by_layer = getattr(text, "num_attention_heads_per_layer", None)  # Laguna
    for number, (layer, limit) in enumerate(zip(layer_configs(text), sliding_windows(text), strict=False)):
        heads, key_value_heads, dimension = head_shape(layer)
        heads = heads_by_layer[number] if heads_by_layer else heads
        if latent := getattr(layer, "kv_lora_rank", None):
            rotary, value = layer.qk_rope_head_dim, layer.v_head_dim
            layers.append(LayerCosts(limit, latent + rotary, heads * (layer.qk_nope_head_dim + rotary + value)))
        elif getattr(layer, "v_head_dim", None):  # MiMo-V2-Flash: sliding layers have twice as many key-value heads
            raise ValueError(
                f"{text.model_type} has values of a width of their own (v_head_dim), and how many heads have them its "
                "config does not tell for every layer: measure, with wandlib.profile or the nbytes of a WandCache"
            )
        else:
            layers.append(LayerCosts(limit, 2 * key_value_heads * dimension, 2 * heads * dimension))
    return layers


def check_tokens(conditioning: Any, generated: Any) -> tuple[int, int]:
    """Return both as ints; raise ValueError unless they are numbers of tokens."""
    return check_number("conditioning, in tokens,", conditioning), check_number("generated, in tokens,", generated)


def largest_blocks(text_blocks: Sequence[int] | None, blocks: int | None) -> int:
    """Return the largest sum of ``blocks`` neighboring text blocks: the room that a cache makes for text, in tokens.

    Raises
    ------
    ValueError
        If only one of the two is given, ``blocks`` < 1, or a block is empty.
    """
    if blocks is None and text_blocks is None:
        return 0
    if blocks is None or text_blocks is None:
        raise ValueError(
            f"text_blocks (the length of each) and blocks (how many stay visible) go together; got text_blocks="
            f"{text_blocks!r} and blocks={blocks!r}: give both, or count all conditioning in conditioning"
        )
    visible, _ = check_blocks(blocks, None)
    lengths = [check_number("the length of a text block, in tokens,", length, 1) for length in text_blocks]
    return max((sum(lengths[start : start + visible]) for start in range(len(lengths))), default=0)


def cache_bytes(
    config: PreTrainedConfig,
    *,
    conditioning: SupportsIndex | float,
    generated: SupportsIndex | float,
    window: SupportsIndex | float | None = None,
    dtype: torch.dtype = torch.float32,
    batch: SupportsIndex | float = 1,
    beams: SupportsIndex | float = 1,
    shared: bool = False,
    int8: bool = False,
    text_blocks: Sequence[int] | None = None,
    blocks: int | None = None,
) -> int:
    """Compute the bytes of keys and values after ``generated`` tokens.

    Parameters
    ----------
    conditioning, generated
        Numbers of tokens, P and T; with ``blocks``, P is what is pinned.
    window
        Generated keys that are kept, W; None: full attention.
    dtype
        Type of keys and values.
    batch, beams
        Number of utterances, and of sequences decoded for each.
    shared
        Whether the beams of an utterance share its conditioning entries: P + beams x W in place of beams x (P + W).
    int8
        Whether the conditioning entries (with ``blocks``, the pinned ones) are int8, with a scale in ``dtype`` for each
        head and channel.
    text_blocks
        Tokens of each text block so far, in order, where blocks expire.
    blocks
        How many of them stay visible, the one under way included; room for the largest of these sums is kept.

    Raises
    ------
    ValueError
        If a number is not a whole one or out of range, if only one of ``text_blocks`` and ``blocks`` is given, for int8
        or blocks under full attention, or blocks with ``shared``, or if ``config`` does not tell what a layer caches.

    Notes
    -----
    A :class:`~wandlib.attention.cache.cache.WandCache` allocates its ring at once: its ``nbytes`` is this number once
    T = W. Under full attention a layer with a sliding window of its own holds one entry less than that window, as in
    transformers.
    """
    conditioning, generated = check_tokens(conditioning, generated)
    batch, beams = check_number("batch", batch, 1), check_number("beams", beams, 1)
    if window is not None:
        window = check_window(window)
    elif int8:
        raise ValueError("int8 conditioning is an option of the windowed cache: give window")
    text = largest_blocks(text_blocks, blocks)
    if blocks is not None and (window is None or shared):
        raise ValueError(
            f"text blocks expire in the windowed cache, which shares no prompt then; got window={window!r} and "
            f"shared={shared!r}: give window, and leave out shared"
        )
    total = 0
    for limit, entry, _ in layer_costs(config):
        recent = text + (generated if window is None else min(generated, window))
        held = conditioning + recent
        if window is None and limit is not None:
            held = min(held, limit - 1)
        fixed = max(0, held - recent)
        fixed_bytes = fixed + dtype.itemsize if int8 else fixed * dtype.itemsize
        total += entry * ((1 if shared else beams) * fixed_bytes + beams * (held - fixed) * dtype.itemsize)
    return batch * total


def attention_flops(
    config: PreTrainedConfig,
    *,
    conditioning: SupportsIndex | float,
    generated: SupportsIndex | float,
    window: SupportsIndex | float | None = None,
    batch: SupportsIndex | float = 1,
) -> int:
    """Count the floating-point operations of attention over ``generated`` steps; a multiply and an add are two.

    Parameters
    ----------
    conditioning, generated
        Numbers of tokens, P and T.
    window
        Generated keys that a query sees, W; None: full attention.
    batch
        Number of sequences.

    Raises
    ------
    ValueError
        If a number is not a whole one or out of range, or if ``config`` does not tell the heads of a layer.
    """
    conditioning, generated = check_tokens(conditioning, generated)
    batch = check_number("batch", batch, 1)
    window = UNBOUNDED if window is None else check_window(window)
    total, steps = 0, range(1, generated + 1)
    for layer, count in Counter(layer_costs(config)).items():
        limit = UNBOUNDED if layer.limit is None else layer.limit
        pairs = sum(max(0, min(conditioning, limit - step)) + min(step, window, limit) for step in steps)
        total += count * pairs * 2 * layer.pair
    return batch * total
