"""The rule: which key may a query see.

A token is one of three things. *Conditioning* (text, task tokens, reference audio) is either pinned, and seen by
everything after it, or part of a text block, and seen until ``blocks - 1`` further blocks have begun. A *generated*
token is seen while fewer than ``window`` generated tokens ago, the query's own included. *Padding* is seen by no real
token. With ``g`` the running count of generated tokens and ``b`` the number of the latest text block (0: pinned),

    visible(q, k) = position[k] <= position[q]  and
                    (b[k] == 0 or b[q] - b[k] < blocks    if conditioning[k] else    g[q] - g[k] < window)

(WAND, arXiv 2604.08558, section 2, where all conditioning is pinned). Distance is counted in generated tokens, so
conditioning that arrives in mid-stream uses up none of the window. Padding needs no clause of its own: its count is
``PADDING``, which no window reaches back to.

The rule is written once, in :func:`visible`. The boolean mask, the soft bias of training, the functions of flex
attention and the masks of the cache are derived from it. Full attention is a window, and blocks, ``UNBOUNDED``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from wandlib.attention.numbers import whole_number

UNBOUNDED = 2**29
"""A window that no utterance outgrows, and a number of blocks that no text reaches: full attention."""
PADDING = -(2**30)
"""The generated count of padding: further back than even ``UNBOUNDED`` reaches."""


class Tokens(NamedTuple):
    """What the rule needs to know of each token; every field is [batch, time], or broadcasts with the others."""

    position: Int[Tensor, ...]
    """Index in the sequence, padding counted."""
    generated: Int[Tensor, ...]
    """How many generated tokens there are up to here, this one included; ``PADDING`` for padding."""
    conditioning: Bool[Tensor, ...]
    """Whether the token is conditioning."""
    block: Int[Tensor, ...]
    """Text blocks that have begun up to here; of a conditioning token, 0 means that it is pinned."""
    utterance: Int[Tensor, ...]
    """Which of the utterances packed into the row the token belongs to."""


def visible(
    query: Tokens, key: Tokens, window: int, *, blocks: int = UNBOUNDED, sliding_window: int | None = None
) -> Bool[Tensor, ...]:
    """Say which keys a query sees: THE rule, on tokens whose fields broadcast.

    Parameters
    ----------
    window
        How many generated keys a query sees, its own included.
    blocks
        How many text blocks a query sees, the one under way included.
    sliding_window
        The window that a layer has of its own, in tokens of any kind, its own included (transformers' convention).
    """
    unexpired = (key.block == 0) | (query.block - key.block < blocks)
    near = query.generated - key.generated < window
    seen = (key.position <= query.position) & torch.where(key.conditioning, unexpired, near)
    seen = seen & (key.utterance == query.utterance)
    return seen if sliding_window is None else seen & (query.position - key.position < sliding_window)


def tokens(
    conditioning: Bool[Tensor, "batch time"],
    padding: Bool[Tensor, "batch time"] | None = None,
    start: int = 0,
    generated: Int[Tensor, "batch 1"] | int = 0,
    *,
    block: Int[Tensor, "batch time"] | None = None,
    utterance: Int[Tensor, "batch time"] | None = None,
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
    block
        As :func:`text_blocks` counts them; None: all conditioning is pinned.
    utterance
        Number of the utterance in a packed row; None: one utterance a row.
    """
    position = torch.arange(start, start + conditioning.shape[1], device=conditioning.device).expand_as(conditioning)
    zero = torch.zeros_like(position)
    block = zero if block is None else block
    utterance = zero if utterance is None else utterance
    if padding is None:
        return Tokens(position, (~conditioning).cumsum(1) + generated, conditioning, block, utterance)
    count = (~conditioning & ~padding).cumsum(1) + generated
    return Tokens(position, count.masked_fill(padding, PADDING), conditioning & ~padding, block, utterance)


def text_blocks(
    conditioning: Bool[Tensor, "batch time"],
    padding: Bool[Tensor, "batch time"] | None = None,
    pinned: int = 0,
    *,
    seen: Int[Tensor, "batch 1"] | int = 0,
    begun: Int[Tensor, "batch 1"] | int = 0,
    interrupted: Bool[Tensor, "batch 1"] | bool = True,
) -> Int[Tensor, "batch time"]:
    """Count the text blocks that have begun up to each token.

    The first ``pinned`` conditioning tokens belong to no block. After them, each run of conditioning that is not
    interrupted by a generated token is a block.

    Parameters
    ----------
    padding
        True where there is no token; it interrupts nothing.
    seen, begun
        Conditioning tokens and blocks that came before this stretch.
    interrupted
        Whether the next conditioning token begins a block even if no generated token of this stretch precedes it.
    """
    real = torch.ones_like(conditioning) if padding is None else ~padding
    text = conditioning & real & ((conditioning & real).cumsum(1) + seen > pinned)
    last_text, last_generated = _last_before(text), _last_before(real & ~conditioning)
    begins = text & ((last_generated > last_text) | (last_text < 0) & interrupted)
    return begins.cumsum(1) + begun


def _last_before(marked: Bool[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """Index of the last marked token before each token; -1 where there is none."""
    index = torch.arange(marked.shape[1], device=marked.device).where(marked, -1).cummax(1).values
    return torch.cat([torch.full_like(index[:, :1], -1), index[:, :-1]], 1)


def utterance_starts(
    position_ids: Int[Tensor, "batch time"], padding: Bool[Tensor, "batch time"] | None = None
) -> Bool[Tensor, "batch time"] | None:
    """Say where an utterance begins that is not the first of its row: where positions fall; None: nowhere.

    Parameters
    ----------
    padding
        True where there is no token, and so no position.

    Raises
    ------
    ValueError
        If a position repeats, which is neither, or one is left out where rows hold several utterances: transformers
        would begin another one there.
    """
    real = torch.ones_like(position_ids, dtype=torch.bool) if padding is None else ~padding
    before = _last_before(real)
    rise = (position_ids - position_ids.gather(1, before.clamp(min=0))).where(real & (before >= 0), 1)
    if not bool((rise <= 0).any()):
        return None
    if bool((unclear := (rise == 0) | (rise > 1)).any()):
        row, place = (int(index) for index in unclear.nonzero()[0])
        raise ValueError(
            f"position_ids go from {int(position_ids[row, before[row, place]])} to {int(position_ids[row, place])}: "
            "where rows hold several utterances, of two tokens or more, positions rise by one within each, and start "
            "again with the next; padding shows by an attention_mask"
        )
    return rise < 0


def packed_utterances(
    position_ids: Int[Tensor, "batch time"], padding: Bool[Tensor, "batch time"] | None = None
) -> Int[Tensor, "batch time"] | None:
    """Tell utterances packed into a row apart by a number, see :func:`utterance_starts`; None: one a row."""
    begins = utterance_starts(position_ids, padding)
    return None if begins is None else begins.cumsum(1)


def boolean_mask(
    query: Tokens, key: Tokens, window: int, *, blocks: int = UNBOUNDED, sliding_window: int | None = None
) -> Bool[Tensor, "batch query_time key_time"]:
    """Apply the rule to every pair of a query and a key: True where the key is seen."""
    queries = Tokens(*(part[:, :, None] for part in query))
    keys = Tokens(*(part[:, None, :] for part in key))
    return visible(queries, keys, window, blocks=blocks, sliding_window=sliding_window)


def additive_mask(
    query: Tokens,
    key: Tokens,
    window: int,
    dtype: torch.dtype,
    tau: float = float("inf"),
    *,
    blocks: int = UNBOUNDED,
    sliding_window: int | None = None,
) -> Float[Tensor, "batch 1 query_time key_time"]:
    """Make the bias that is added to the attention scores: ``A - tau * M``, M = 1 where only the window hides the key.

    Parameters
    ----------
    tau
        How strongly the keys outside the window, and those of expired blocks, are held back. ``inf`` is the hard
        window of inference; a finite value lets some attention, and so gradient, through. What causality, padding or
        ``sliding_window`` hide is hidden at any tau.
    dtype
        Type of the attention scores; what is hidden gets its most negative number, as everywhere in transformers.
    """
    lowest = torch.finfo(dtype).min
    hidden = torch.full((), lowest, dtype=dtype, device=key.position.device)
    outside = hidden if tau == float("inf") else hidden.new_tensor(max(-tau, lowest))
    seen = boolean_mask(query, key, window, blocks=blocks, sliding_window=sliding_window)
    bias = torch.where(seen, hidden.new_zeros(()), outside)
    if tau != float("inf"):
        bias = torch.where(boolean_mask(query, key, UNBOUNDED, sliding_window=sliding_window), bias, hidden)
    return bias[:, None]


def mask_mod(
    sequence: Tokens, window: int, *, blocks: int = UNBOUNDED, sliding_window: int | None = None
) -> Callable[..., Tensor]:
    """Give the rule as flex attention wants it: a function of (batch, head, query index, key index)."""

    def at(batch: Any, index: Any) -> Tokens:
        return Tokens(*(part[batch, index] for part in sequence))

    # flex attention counts the arguments of the function itself: no decorator may wrap it.
    return lambda batch, head, query, key: visible(
        at(batch, query), at(batch, key), window, blocks=blocks, sliding_window=sliding_window
    )


def block_mask(
    sequence: Tokens, window: int, *, blocks: int = UNBOUNDED, sliding_window: int | None = None
) -> BlockMask:
    """Give the hard window as a flex attention block mask: blocks that no query sees are never computed."""
    batch, time = sequence.position.shape
    device = str(sequence.position.device)
    rule = mask_mod(sequence, window, blocks=blocks, sliding_window=sliding_window)
    return create_block_mask(rule, batch, None, time, time, device=device)


def prefix_conditioning(lengths: Int[Tensor, " batch"], time: int) -> Bool[Tensor, "batch time"]:
    """Mark conditioning that is a prefix, ``lengths[b]`` tokens long in sample b."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def conditioning_until(input_ids: Int[Tensor, "batch time"], token_id: int) -> Bool[Tensor, "batch time"]:
    """Mark conditioning up to and including the first ``token_id`` of each sample; all of it where the token is absent.

    For systems that generate part of their own conditioning, as Spark-TTS does with its global tokens.
    """
    seen = (input_ids == token_id).cumsum(1)
    return (seen == 0) | ((seen == 1) & (input_ids == token_id))


def check_window(window: Any) -> int:
    """Return ``window`` as an int; raise ValueError unless it is a whole number from 1 to ``UNBOUNDED``."""
    number = whole_number(window)
    if number is None or number < 1:
        raise ValueError(f"window is a number of keys, the query's own included, so at least 1; got {window!r}")
    if number > UNBOUNDED:
        raise ValueError(
            f"window is at most {UNBOUNDED}, which no utterance outgrows: beyond it lies padding; got {window!r}"
        )
    return number
