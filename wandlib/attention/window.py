"""The rule: which key may a query see.

A token is one of three things. *Conditioning* (text, task tokens, reference audio) is seen by everything after it. A
*generated* token is seen while fewer than ``window`` generated tokens ago, the query's own included. *Padding* is seen
by no real token. With ``g`` the running count of generated tokens,

    visible(q, k) = position[k] <= position[q]  and  (conditioning[k] or g[q] - g[k] < window)

(WAND, arXiv 2604.08558, section 2). Distance is counted in generated tokens, so conditioning that arrives in mid-stream
uses up none of the window. Padding needs no clause of its own: its count is ``NEVER``, which no window reaches back to.

The rule is written once, in :func:`visible`. The boolean mask, the soft bias of training, the functions of flex
attention and the masks of the cache are derived from it. Full attention is the window ``EVERYTHING``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import PreTrainedConfig

EVERYTHING = 2**29
"""A window no utterance outgrows: full attention."""
NEVER = -(2**30)
"""The generated count of padding: further back than even ``EVERYTHING`` reaches."""


class Tokens(NamedTuple):
    """What the rule needs to know of each token; every field is [batch, time]."""

    position: Int[Tensor, "batch time"]
    """Index in the sequence, padding counted."""
    generated: Int[Tensor, "batch time"]
    """How many generated tokens there are up to here, this one included; ``NEVER`` for padding."""
    conditioning: Bool[Tensor, "batch time"]
    """Seen by every later query."""


def visible(
    query_position: Any,
    query_generated: Any,
    key_position: Any,
    key_generated: Any,
    key_conditioning: Any,
    window: int,
    limit: int | None = None,
) -> Any:
    """Say which keys a query sees: THE rule, on numbers or on tensors that broadcast.

    Parameters
    ----------
    query_position, key_position
        Index in the sequence.
    query_generated, key_generated
        Generated tokens up to and including this one; ``NEVER`` for padding.
    key_conditioning
        Whether the key is conditioning.
    window
        How many generated keys a query sees, its own included.
    limit
        The sliding window a layer has of its own, in tokens of any kind, its own included (transformers' convention).
    """
    seen = (key_position <= query_position) & (key_conditioning | (query_generated - key_generated < window))
    return seen if limit is None else seen & (query_position - key_position < limit)


def tokens(
    conditioning: Bool[Tensor, "batch time"],
    padding: Bool[Tensor, "batch time"] | None = None,
    start: int = 0,
    generated: Int[Tensor, "batch 1"] | int = 0,
) -> Tokens:
    """Describe a stretch of tokens by what the rule needs.

    Parameters
    ----------
    conditioning
        True where the token is conditioning.
    padding
        True where there is no token at all; wins over ``conditioning``.
    start, generated
        How many tokens, and how many generated tokens, came before.
    """
    position = torch.arange(start, start + conditioning.shape[1], device=conditioning.device).expand_as(conditioning)
    if padding is None:
        return Tokens(position, (~conditioning).cumsum(1) + generated, conditioning)
    count = (~conditioning & ~padding).cumsum(1) + generated
    return Tokens(position, count.masked_fill(padding, NEVER), conditioning & ~padding)


def boolean_mask(
    query: Tokens, key: Tokens, window: int, limit: int | None = None
) -> Bool[Tensor, "batch query_time key_time"]:
    """The rule for every pair of a query and a key: True where the key is seen."""
    return visible(
        query.position[:, :, None],
        query.generated[:, :, None],
        key.position[:, None, :],
        key.generated[:, None, :],
        key.conditioning[:, None, :],
        window,
        limit,
    )


def additive_mask(
    query: Tokens,
    key: Tokens,
    window: int,
    dtype: torch.dtype,
    tau: float = float("inf"),
    limit: int | None = None,
) -> Float[Tensor, "batch 1 query_time key_time"]:
    """The bias that is added to the attention scores: ``A - tau * M``, with M = 1 where only the window hides the key.

    Parameters
    ----------
    tau
        How strongly the keys outside the window are held back. ``inf`` is the hard window of inference; a finite value
        lets some attention, and so gradient, through. What causality, padding or ``limit`` hide is hidden at any tau.
    dtype
        Of the attention scores; what is hidden gets its most negative number, as everywhere in transformers.
    """
    lowest = torch.finfo(dtype).min
    hidden = torch.full((), lowest, dtype=dtype, device=key.position.device)
    outside = hidden if tau == float("inf") else hidden.new_tensor(max(-tau, lowest))
    bias = torch.where(boolean_mask(query, key, window, limit), hidden.new_zeros(()), outside)
    if tau != float("inf"):
        bias = torch.where(boolean_mask(query, key, EVERYTHING, limit), bias, hidden)
    return bias[:, None]


def mask_mod(sequence: Tokens, window: int, limit: int | None = None) -> Callable[..., Tensor]:
    """The rule as flex attention wants it: a function of (batch, head, query index, key index)."""
    position, generated, conditioning = sequence
    return lambda batch, head, query, key: visible(
        position[batch, query],
        generated[batch, query],
        position[batch, key],
        generated[batch, key],
        conditioning[batch, key],
        window,
        limit,
    )


def score_mod(sequence: Tokens, window: int, tau: float, limit: int | None = None) -> Callable[..., Tensor]:
    """The soft mask for flex attention: ``score - tau`` outside the window. Goes with the block mask of EVERYTHING."""
    rule = mask_mod(sequence, window, limit)
    return lambda score, batch, head, query, key: torch.where(rule(batch, head, query, key), score, score - tau)


def block_mask(sequence: Tokens, window: int, limit: int | None = None) -> BlockMask:
    """The hard window as a flex attention block mask: blocks that no query sees are never computed."""
    batch, time = sequence.position.shape
    device = str(sequence.position.device)
    return create_block_mask(mask_mod(sequence, window, limit), batch, None, time, time, device=device)


def prefix_conditioning(lengths: Int[Tensor, " batch"], time: int) -> Bool[Tensor, "batch time"]:
    """Conditioning that is a prefix, ``lengths[b]`` tokens long in sample b."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def conditioning_until(input_ids: Int[Tensor, "batch time"], token_id: int) -> Bool[Tensor, "batch time"]:
    """Conditioning up to and including the first ``token_id`` of each sample; all of it where the token never comes.

    For systems that generate part of their own conditioning, as Spark-TTS does with its global tokens.
    """
    seen = (input_ids == token_id).cumsum(1)
    return (seen == 0) | ((seen == 1) & (input_ids == token_id))


def own_limits(config: PreTrainedConfig) -> list[int | None]:
    """List the sliding window that each layer has of its own, in tokens; None where a layer attends to everything.

    Raises
    ------
    ValueError
        If a layer is not plain attention (linear, chunked, shared keys): there is nothing to put a window on.
    """
    text = config.get_text_config(decoder=True)
    own = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        chunked = getattr(text, "attention_chunk_size", None) is not None
        kind = "sliding_attention" if own is not None else "chunked_attention" if chunked else "full_attention"
        kinds = [kind] * text.num_hidden_layers
    if shared := getattr(text, "num_kv_shared_layers", None):
        kinds = kinds[: len(kinds) - shared] + ["shared_keys"] * shared
    for layer, kind in enumerate(kinds):
        if kind not in ("full_attention", "sliding_attention"):
            raise ValueError(
                f"layer {layer} of {text.model_type} is of type {kind!r}; a window needs 'full_attention' or "
                "'sliding_attention' layers with keys of their own"
            )
    return [own if kind == "sliding_attention" else None for kind in kinds]


def check_window(window: int) -> None:
    """Raise ValueError unless ``window`` is a whole number of at least 1."""
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        raise ValueError(f"window is a number of keys, the query's own included, so at least 1; got {window!r}")


def fitting(conditioning: Tensor, batch: int, time: int) -> Bool[Tensor, "batch time"]:
    """Return ``conditioning`` if it is a bool for each of ``batch`` x ``time`` tokens; raise ValueError if not."""
    if conditioning.dtype != torch.bool or conditioning.shape != (batch, time):
        raise ValueError(
            f"conditioning must be a bool tensor of shape [batch, time] = [{batch}, {time}], one flag for each token "
            f"of the input; got {conditioning.dtype} of shape {list(conditioning.shape)}"
        )
    return conditioning
