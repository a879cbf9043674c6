"""The arguments that callers pass, filled in and checked; the window itself by :func:`.window.check_window`."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from wandlib.attention.numbers import whole_number
from wandlib.attention.window import UNBOUNDED


def as_converted(config: Any, **given: Any) -> list[Any]:
    """Return settings as given, and where None is, as ``config`` has kept them since its model was converted."""
    kept = getattr(config, "wand", None) or {}
    return [kept.get(name) if value is None else value for name, value in given.items()]


def check_number(name: str, value: Any, least: int = 0) -> int:
    """Return ``value`` as an int; raise ValueError unless it is a whole number of at least ``least``."""
    number = whole_number(value)
    if number is None or number < least:
        raise ValueError(f"{name} is a whole number, at least {least}; got {value!r}")
    return number


def check_blocks(blocks: Any, pinned: Any) -> tuple[int, int]:
    """Return how many text blocks are visible, and how many tokens are pinned, as ints; None: no block expires.

    Raises
    ------
    ValueError
        If ``blocks`` < 1 or ``pinned`` < 0, or ``pinned`` is given without ``blocks``.
    """
    if blocks is None:
        if pinned is not None:
            raise ValueError(f"pinned={pinned!r} says what outlives the text blocks: give blocks too, or leave it out")
        return UNBOUNDED, 0
    number, first = whole_number(blocks), whole_number(0 if pinned is None else pinned)
    if number is None or not 1 <= number <= UNBOUNDED:
        raise ValueError(
            f"blocks is how many text blocks are visible (1 to {UNBOUNDED}), the one under way included; got {blocks!r}"
        )
    if first is None or first < 0:
        raise ValueError(f"pinned is a number of conditioning tokens that never expire, at least 0; got {pinned!r}")
    return number, first


def check_conditioning(conditioning: Tensor, batch: int, time: int) -> Bool[Tensor, "batch time"]:
    """Return ``conditioning`` if it is a bool for each of ``batch`` x ``time`` tokens; raise ValueError if not."""
    if conditioning.dtype != torch.bool or conditioning.shape != (batch, time):
        raise ValueError(
            f"conditioning must be a bool tensor of shape [batch, time] = [{batch}, {time}], one flag for each token "
            f"of the input; got {conditioning.dtype} of shape {list(conditioning.shape)}"
        )
    return conditioning


def check_pinned(pinned: int | None, utterance: Tensor | None) -> None:
    """Raise ValueError where tokens are pinned, and rows hold several utterances: only the first one's would be."""
    if pinned and utterance is not None:
        raise ValueError(
            f"pinned={pinned} counts from the start of a row, and this one holds several utterances: give each of them "
            "a row of its own"
        )


def check_block(
    block: Tensor, batch: int, time: int, padding: Bool[Tensor, "batch time"] | None = None, *, begun: Any = 0
) -> Int[Tensor, "batch time"]:
    """Return ``block`` if it counts the text blocks up to each of ``batch`` x ``time`` tokens; raise ValueError if not.

    Parameters
    ----------
    padding
        True where there is no token, so that its number does not matter.
    begun
        Blocks that had begun before, in each row.
    """
    whole = not (block.is_floating_point() or block.is_complex() or block.dtype == torch.bool)
    if not whole or block.shape != (batch, time):
        raise ValueError(
            f"block must be a tensor of whole numbers of shape [batch, time] = [{batch}, {time}], the text blocks that "
            f"have begun up to each token; got {block.dtype} of shape {list(block.shape)}"
        )
    real = torch.ones_like(block, dtype=torch.bool) if padding is None else ~padding
    latest = block.masked_fill(~real, 0).cummax(1).values
    if bool((real & ((block < latest) | (block < begun))).any()):
        raise ValueError(
            "block counts the text blocks that have begun up to each token, from 0: it never falls in a row"
        )
    return block
