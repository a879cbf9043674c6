"""Computed costs of attention: cache bytes and FLOPs of any config, with full attention and with a window.

With P conditioning and T generated tokens, full attention caches P + T entries a layer, the window P + min(T, W), so
that

    reduction = 1 - (P + W) / (P + T) = (T - W) / (P + T)

FLOPs count the two products of attention, Q K^T and A V, over the decoding steps: 4 x heads x head_dim for every pair
of a query and a key that it sees, the query's own included; projections, softmax and the prefill do not count. This
definition reproduces the paper's numbers for IndexTTS 1.5 (arXiv 2604.08558, table 1) within 3 %: 6.28 and 3.35
GFLOPs at P = 79, T = 250 against the published 6.18 and 3.28.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig

from wandlib.attention.models import sliding_windows
from wandlib.attention.window import UNBOUNDED, check_window


def head_shape(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Return the numbers of heads and of key-value heads, and the dimension of a head."""
    text = config.get_text_config(decoder=True)
    heads = text.num_attention_heads
    key_value_heads = getattr(text, "num_key_value_heads", None) or heads
    return heads, key_value_heads, getattr(text, "head_dim", None) or text.hidden_size // heads


def check_tokens(conditioning: int, generated: int) -> None:
    """Raise ValueError unless both are numbers of tokens."""
    if conditioning < 0 or generated < 0:
        raise ValueError(f"numbers of tokens cannot be negative: conditioning={conditioning}, generated={generated}")


def cache_bytes(
    config: PreTrainedConfig,
    *,
    conditioning: int,
    generated: int,
    window: int | None = None,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    beams: int = 1,
    shared: bool = False,
    int8: bool = False,
) -> int:
    """Compute the bytes of keys and values after ``generated`` tokens.

    Parameters
    ----------
    conditioning, generated
        Numbers of tokens, P and T.
    window
        Generated keys that are kept, W; None: full attention.
    dtype
        Type of keys and values.
    batch, beams
        Number of utterances, and of sequences decoded for each.
    shared
        Whether the beams of an utterance share its conditioning entries: P + beams x W in place of beams x (P + W).
    int8
        Whether the conditioning entries are int8, with a scale in ``dtype`` for each head and channel.

    Raises
    ------
    ValueError
        If a number of tokens is negative or ``window`` < 1, or for int8 under full attention.

    Notes
    -----
    A :class:`~wandlib.attention.cache.cache.WandCache` allocates its ring at once: its ``nbytes`` is this number once
    T = W. Under full attention a layer with a sliding window of its own holds one entry less than that window, as in
    transformers.
    """
    check_tokens(conditioning, generated)
    if window is not None:
        check_window(window)
    elif int8:
        raise ValueError("int8 conditioning is an option of the windowed cache: give window")
    _, heads, dimension = head_shape(config)
    total = 0
    for limit in sliding_windows(config):
        held = conditioning + (generated if window is None else min(generated, window))
        if window is None and limit is not None:
            held = min(held, limit - 1)
        fixed = min(held, conditioning)
        fixed_bytes = fixed + dtype.itemsize if int8 else fixed * dtype.itemsize
        total += (1 if shared else beams) * fixed_bytes + beams * (held - fixed) * dtype.itemsize
    return batch * total * 2 * heads * dimension


def attention_flops(
    config: PreTrainedConfig, *, conditioning: int, generated: int, window: int | None = None, batch: int = 1
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
        If a number of tokens is negative or ``window`` < 1.
    """
    check_tokens(conditioning, generated)
    window = UNBOUNDED if window is None else window
    check_window(window)
    heads, _, dimension = head_shape(config)
    pairs = 0
    for own in sliding_windows(config):
        limit = UNBOUNDED if own is None else own
        for step in range(1, generated + 1):
            pairs += max(0, min(conditioning, limit - step)) + min(step, window, limit)
    return batch * pairs * 4 * heads * dimension
