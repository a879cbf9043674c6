"""What the masks and positions of a pass say, as ``generate`` or a loop of one's own gives them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def padding_of(
    mask: Any, start: int, length: int, sliding_windows: Collection[int | None] = (None,)
) -> Bool[Tensor, "batch length"] | None:
    """Say which of the ``length`` tokens after the first ``start`` are padding; None: none of them.

    Parameters
    ----------
    mask
        2-D, [batch, start + length] or [batch, length], 1 for a token; or 4-D as ``generate`` prepares it for a static
        cache, and a model around the decoder for its text, one or, in a dict, one for each kind of layer.
    sliding_windows
        Those that layers have of their own, which a 4-D mask may show.

    Raises
    ------
    ValueError
        If a 4-D mask shows or hides more than causality, padding and a sliding window do: the window makes its own.
    """
    if isinstance(mask, dict):
        masks = list(mask.values())
        found = [padding_of(one, start, length, sliding_windows) for one in masks]
        return next((one for one in found if one is not None), None)
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise ValueError(
            f"a {type(mask).__name__} as attention_mask is not read: pass a 2-D one (1 = token, 0 = padding) or none"
        )
    if mask.ndim != 4:
        padding = mask[:, -length:] == 0
        return padding if bool(padding.any()) else None
    seen = (mask if mask.dtype == torch.bool else mask >= 0)[:, 0]
    new = seen[:, :, start : start + length]
    if new.shape[1:] != (length, length):
        raise ValueError(
            f"a mask of shape {list(mask.shape)} does not cover the {length} new tokens after {start}: pass a 2-D "
            "attention_mask (1 = token, 0 = padding) or none, and the window makes its own"
        )
    real = new.diagonal(dim1=1, dim2=2)
    causal = real[:, None, :].expand_as(new).tril()
    # What padding sees is of no interest.
    if bool((new & ~causal & real[:, :, None]).any()):
        raise ValueError(
            "this 4-D attention_mask lets tokens see later ones: under a window attention is causal; pass a 2-D "
            "attention_mask (1 = token, 0 = padding) or none"
        )
    hidden, index = causal & ~new & real[:, :, None], torch.arange(length, device=new.device)
    ago = index[:, None] - index
    if not any(
        torch.equal(hidden, causal & real[:, :, None] & (ago >= (limit or length))) for limit in sliding_windows
    ):
        raise ValueError(
            "this 4-D attention_mask hides more than padding and the layers' own sliding windows do, which a window "
            "would not keep to: pass a 2-D attention_mask (1 = token, 0 = padding) or none, and packed utterances by "
            "position_ids that start again"
        )
    return None if bool(real.all()) else ~real


def check_continues(held: int, started: Tensor | None, length: int, mask: Any, position_ids: Any) -> None:
    """Check that new tokens go on from the ``held`` ones that a cache has seen.

    Parameters
    ----------
    started
        Where there was padding among those, so that positions lag behind: which sequences hold a token; else None.
    length
        Of the new tokens.

    Raises
    ------
    ValueError
        If they plainly do not, or if utterances are packed into a row.
    """
    positions = position_ids if isinstance(position_ids, Tensor) and position_ids.ndim == 2 else None
    falls = positions is not None and length > 1 and bool((positions[:, 1:] <= positions[:, :-1]).any())
    if falls and started is None and not _has_padding(mask):
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
        if isinstance(mask, Tensor) and mask.ndim == 2:
            restarted = restarted & (mask[:, -length] != 0).to(first.device)  # the position of padding says nothing
        restarts = bool(restarted.any())
    if restarts:
        raise ValueError(
            f"this cache already holds {held} tokens and the input does not go on from there: to use it for another "
            "prompt, call cache.reset() first"
        )


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
    hidden = (mask == 0).sum(1, keepdim=True)
    if bool((hidden != (0 if padding is None or mask.shape[1] == 1 else padding.to(mask.device))).any()):
        raise ValueError(
            "the attention_mask of this step does not hide the same tokens as before, and what a cache holds is not "
            "hidden afterwards: pass the prompt's mask with a 1 for each token since, or none"
        )


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


def _has_padding(mask: Any) -> bool:
    """Whether a mask may hide some token."""
    return mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 2 and bool((mask != 0).all()))
