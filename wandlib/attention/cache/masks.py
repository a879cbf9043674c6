"""What the masks and positions of a pass say, as ``generate`` or a loop of one's own gives them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from wandlib.attention.models import Decoder, new_tokens
from wandlib.attention.window import packed_utterances

ANOTHER = "; to use the cache for another prompt, call cache.reset() first"
OTHERWISE = (
    "this attention_mask does not hide the same tokens as before, and what a cache holds is not hidden afterwards: "
    "pass the prompt's mask with a 1 for each token since"
)


def padding_of(
    mask: Any,
    batch: int,
    start: int,
    length: int,
    sliding_windows: Collection[int | None] = (None,),
    held: Int[Tensor, "batch 1"] | None = None,
) -> Bool[Tensor, "batch length"] | None:
    """Say which of the ``length`` tokens after the first ``start`` are padding; None: none of them.

    Parameters
    ----------
    mask
        2-D, [batch, start + length] or [batch, length], 1 for a token; or 4-D as ``generate`` prepares it for a static
        cache, and a model around the decoder for its text, one or, in a dict, one for each kind of layer.
    sliding_windows
        Those that layers have of their own, which a 4-D mask may show.
    held
        Padding tokens among the first ``start``; None: none.

    Raises
    ------
    ValueError
        If the mask does not fit the tokens or does not hide the same of the first ``start`` as before, or if a 4-D mask
        shows or hides more than causality, padding and a sliding window do: the window makes its own.
    """
    if isinstance(mask, dict):
        found = [padding_of(one, batch, start, length, sliding_windows, held) for one in mask.values()]
        return next((one for one in found if one is not None), None)
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise ValueError(
            f"a {type(mask).__name__} as attention_mask is not read: pass a 2-D one (1 = token, 0 = padding) or none"
        )
    if mask.ndim == 4:
        return _padding_of_4d(mask, batch, start, length, sliding_windows, held)
    if mask.shape not in ((batch, start + length), (batch, length)):
        raise ValueError(
            f"an attention_mask of shape {list(mask.shape)} does not fit {length} new tokens after {start} in "
            f"{batch} sequence(s): pass one of shape [batch, tokens so far] = [{batch}, {start + length}] "
            "(1 = token, 0 = padding), or none" + (ANOTHER if start else "")
        )
    if mask.shape[1] > length and _hides_otherwise((mask[:, :start] == 0).sum(1, keepdim=True), held):
        raise ValueError(OTHERWISE)
    padding = mask[:, -length:] == 0
    return padding if bool(padding.any()) else None


def _padding_of_4d(
    mask: Tensor, batch: int, start: int, length: int, sliding_windows: Collection[int | None], held: Tensor | None
) -> Bool[Tensor, "batch length"] | None:
    """Return the padding that a 4-D mask shows, in the tokens that see themselves and in those that do not."""
    total = start + length
    seen = (mask if mask.dtype == torch.bool else mask >= 0)[:, 0, :, :total]
    if seen.shape[1:] != (length, total) or len(seen) not in (1, batch):
        raise ValueError(
            f"a mask of shape {list(mask.shape)} does not cover the {length} new tokens after {start} of {batch} "
            "sequence(s): pass a 2-D attention_mask (1 = token, 0 = padding) or none, and the window makes its own"
        )
    real = seen[:, :, start:].diagonal(dim1=1, dim2=2)
    seen = seen & real[:, :, None]  # what padding sees is of no interest
    shown = torch.cat([seen[:, :, :start].any(1), real], 1)
    query, key = torch.arange(start, total, device=seen.device)[:, None], torch.arange(total, device=seen.device)
    causal = real[:, :, None] & shown[:, None] & (key <= query)
    if bool((seen & ~causal).any()):
        raise ValueError(
            "this 4-D attention_mask lets tokens see later ones: under a window attention is causal; pass a 2-D "
            "attention_mask (1 = token, 0 = padding) or none"
        )
    limits = {limit or total for limit in sliding_windows}
    shows = [limit for limit in limits if torch.equal(seen, causal & (query - key < limit))]
    if not shows:
        raise ValueError(
            "this 4-D attention_mask hides more than padding and the layers' own sliding windows do, which a window "
            "would not keep to: pass a 2-D attention_mask (1 = token, 0 = padding) or none, and packed utterances by "
            "position_ids that start again"
        )
    for limit in shows:
        near = (start - key[:start] < limit) & real.any(1, keepdim=True)  # what some new token would see
        hidden = (near & ~shown[:, :start]).sum(1, keepdim=True)
        if not _hides_otherwise(hidden, held, whole=near.all(1, keepdim=True)):
            break
    else:
        raise ValueError(OTHERWISE)
    return None if bool(real.all()) else ~real.expand(batch, -1)


def _hides_otherwise(hidden: Tensor, held: Tensor | None, whole: Tensor | None = None) -> bool:
    """Whether other than as many held tokens are hidden as were padding; fewer may be where not ``whole``."""
    padding: Any = 0 if held is None else held.to(hidden.device)
    wrong = hidden != padding
    return bool((wrong if whole is None else wrong & (whole | (hidden > padding))).any())


def check_continues(
    held: int,
    started: Bool[Tensor, " batch"] | None,
    length: int,
    mask: Any,
    position_ids: Any,
    padding: Bool[Tensor, "batch length"] | None,
) -> None:
    """Check that new tokens go on from the ``held`` ones that a cache has seen.

    Parameters
    ----------
    started
        Which sequences hold a token, if there was padding among those, so that positions lag behind; else None.
    length
        Number of new tokens.
    padding
        Which of the new tokens are padding, whose positions say nothing; None: none.

    Raises
    ------
    ValueError
        If they plainly do not, or if utterances are packed into a row.
    """
    positions = position_ids if isinstance(position_ids, Tensor) and position_ids.ndim == 2 else None
    if positions is not None and padding is not None:
        positions = positions.to(padding.device).expand(len(padding), -1)
    if positions is not None and length > 1 and packed_utterances(positions, padding) is not None:
        raise ValueError(
            "position_ids start again within a row: utterances packed into one row cannot share a cache; pass "
            "use_cache=False and conditioning=<bool tensor [batch, time]> to score or train on them"
        )
    if held == 0:
        return
    restarts = length == 0 or (isinstance(mask, Tensor) and mask.ndim == 2 and 1 < length == mask.shape[1])
    if not restarts and length > 1 and positions is not None:
        first = positions[:, 0].to(started.device if started is not None else positions.device)
        restarted = first < held if started is None else (first == 0) & started
        if padding is not None:
            restarted = restarted & ~padding[:, 0].to(first.device)
        restarts = bool(restarted.any())
    if restarts:
        raise ValueError(f"this cache already holds {held} tokens and the input does not go on from there{ANOTHER}")


def check_step(padding: Int[Tensor, "batch 1"] | None, mask: Any) -> None:
    """Check that the mask of a decoding step hides what it hid before: it is not read any further.

    Parameters
    ----------
    padding
        Padding tokens that the cache has seen; None: none.
    mask
        2-D, [batch, tokens so far] or [batch, 1]; any other is left to the model.

    Raises
    ------
    ValueError
        If it hides more, or less.
    """
    if not isinstance(mask, Tensor) or mask.ndim != 2 or torch.compiler.is_compiling():
        return
    if _hides_otherwise((mask == 0).sum(1, keepdim=True), None if mask.shape[1] == 1 else padding):
        raise ValueError(OTHERWISE)


def with_positions(inputs: dict[str, Any], decoder: Decoder, start: Any) -> dict[str, Any]:
    """Return a pass's inputs with ``position_ids``, where the decoder would count them from the mask."""
    if not decoder.positions_from_mask or inputs.get("position_ids") is not None:
        return inputs
    return inputs | {"position_ids": counted_positions(inputs.get("attention_mask"), int(start), new_tokens(inputs))}


def counted_positions(mask: Any, start: int, new: Tensor) -> Int[Tensor, "batch length"]:
    """Count positions as models do that take them from a 2-D mask (OPT): padding has none, and gets -1.

    Parameters
    ----------
    mask
        [batch, start + length], 1 for a token; None: no padding.
    start
        Tokens before the new ones.
    new
        The new tokens, [batch, length, ...].

    Raises
    ------
    ValueError
        If the mask does not cover the tokens before.
    """
    batch, length = new.shape[:2]
    if mask is None:
        return torch.arange(start, start + length, device=new.device).expand(batch, -1)
    if not isinstance(mask, Tensor) or mask.shape != (batch, start + length):
        raise ValueError(
            f"this model counts positions from a 2-D attention_mask of all {start + length} tokens: pass that, or "
            "position_ids"
        )
    real = (mask != 0).long()
    return (real.cumsum(1) * real - 1)[:, start:]
