"""Sequences that share a prompt store its entries once, and attention reads them once.

The beams of a search, or several samples, of one prompt differ only in what they generate. For the decoder they become
N *queries of one sequence*, so that N (P + T) cached entries become P + N W and no attention has to be written for it::

    input    [prompts * N, 1]  ->  [prompts, N]      N tokens side by side, all at the same position
    slots    0 ....... P-1 | P ..................... P + W N - 1
             the prompt    | generated token n of sequence j lies in slot P + (n % W) N + j
    output   [prompts, N, hidden]  ->  [prompts * N, 1, hidden]

A mask of what is whose keeps the sequences apart. A beam that goes on from another takes over its row of that mask:
reordering moves no keys and no values, and of two beams with a common past neither has a copy of it. The prefill, the
same N times over, is run once.

The price: a query is scored against the ring slots of all N sequences. It reads less and computes more, and where heads
share keys, transformers' sdpa copies the keys of each when there is a mask;
:mod:`wandlib.attention.grouped_attention` does not.
Processor time of two layers against the same cache unshared (fp32, one core of an x86_64, 3 beams, 1 and 4 prompts,
medians of 70 alternating steps): at the shape of IndexTTS 1.5 a step with its reorder takes 0.99 and 0.94 of the time,
at that of CosyVoice 2 (14 heads on 2) 1.05 and 1.09, with "grouped_sdpa" 0.95 and 1.00; the prefill takes a third.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.utils import ModelOutput

from wandlib.attention.models import Decoder

Ownership = Bool[Tensor, "prompts 1 sequences slots"]
"""Which slots a sequence reads: those of the prompt, and in the ring those of its own past."""


def check_places(decoder: Decoder) -> None:
    """Raise ValueError for a decoder that takes no ``position_ids``: it would count a prompt's sequences as one."""
    if "position_ids" not in decoder.parameters:
        raise ValueError(
            f"sequences that share a prompt are tokens side by side at one position, and {decoder.name} takes no "
            "position_ids, by which they would be told apart: leave out shared"
        )


def fold_prefill(inputs: dict[str, Any], rows: int, sequences: int) -> dict[str, Any]:
    """Return the inputs of a prefill of ``rows`` sequences with one row for each prompt.

    Raises
    ------
    ValueError
        If sequences that are to share a prompt have different ones, or if the last prompt has too few of them.
    """
    check_rows(rows, sequences)
    return {name: first_of_each(name, value, rows, sequences) for name, value in inputs.items()}


def first_of_each(name: str, value: Any, rows: int, sequences: int) -> Any:
    """Every ``sequences``-th row of an input, the rows between being the same; what has no rows stays as it is."""
    if isinstance(value, dict):  # masks, one for each kind of layer
        return {kind: first_of_each(name, mask, rows, sequences) for kind, mask in value.items()}
    axis = row_axis(name, value, rows)
    if axis is None:
        return value
    groups = value.unflatten(axis, (-1, sequences))
    first = groups.narrow(axis + 1, 0, 1)
    if not torch.equal(groups, first.expand_as(groups)):
        raise ValueError(
            f"this cache stores one prompt for every {sequences} sequences in a row, and their {name} differ: repeat "
            "each prompt (generate does, for num_beams and num_return_sequences), or leave out shared"
        )
    return first.squeeze(axis + 1)


def fold_step(inputs: dict[str, Any], rows: int, sequences: int, position: Any) -> dict[str, Any]:
    """Return the inputs of a step of ``rows`` sequences with those of a prompt as tokens of one row.

    Parameters
    ----------
    position
        Position of the new tokens, if the inputs do not say.

    Raises
    ------
    ValueError
        If the last prompt has too few sequences.
    """
    check_rows(rows, sequences)
    folded = dict(inputs)
    for name, value in inputs.items():
        axis = None if name == "attention_mask" else row_axis(name, value, rows)  # the plan brings another mask
        if axis is not None:
            folded[name] = like = value.squeeze(axis + 1).unflatten(axis, (-1, sequences))
    if folded.get("position_ids") is None:
        folded["position_ids"] = torch.zeros(like.shape[:2], dtype=torch.long, device=like.device) + position
    return folded


def row_axis(name: str, value: Any, rows: int) -> int | None:
    """Return the axis of an input that counts sequences; None where it has none."""
    if not isinstance(value, Tensor) or value.ndim < 2:
        return None
    axis = value.ndim - 2 if name == "position_ids" else 0  # [3, rows, time] where positions have three parts
    return axis if value.shape[axis] == rows else None


def check_rows(rows: int, sequences: int) -> None:
    """Raise ValueError unless ``rows`` are whole groups."""
    if rows % sequences:
        raise ValueError(
            f"this cache shares each prompt among {sequences} sequences, and was given {rows} of them: make it with "
            "shared=num_beams (or num_return_sequences when sampling)"
        )


def unfold_output(output: Any, sequences: int, step: bool) -> Any:
    """Return the output with a row for each sequence again; ``step``: after a step, else after a prefill."""
    if isinstance(output, ModelOutput):
        return type(output)(**{name: unfold_output(value, sequences, step) for name, value in output.items()})
    if isinstance(output, tuple):
        return tuple(unfold_output(value, sequences, step) for value in output)
    if not isinstance(output, Tensor):
        return output
    if not step:
        return output.repeat_interleave(sequences, 0)
    if output.ndim == 4:  # attention weights, [prompts, heads, sequences, slots]
        return output.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    return output.flatten(0, 1).unsqueeze(1)


def initial_ownership(prompts: int, sequences: int, prefix: int, ring: int, device: torch.device) -> Ownership:
    """Say what is whose after the prefill: the ``prefix`` slots belong to all, the ``ring`` slots to no one."""
    slot = torch.arange(prefix + ring, device=device)
    return (slot < prefix).expand(prompts, 1, sequences, -1).clone()


def assign(ownership: Ownership, slots: Int[Tensor, "prompts sequences"] | int) -> None:
    """Give each sequence the slot that its new token goes to, from whoever had it before, in place."""
    sequences = ownership.shape[2]
    each = torch.eye(sequences, dtype=torch.bool, device=ownership.device).expand(len(ownership), 1, -1, -1)
    if isinstance(slots, int):
        ownership.narrow(3, slots, sequences).copy_(each)
    else:
        ownership.scatter_(3, slots[:, None, None].expand_as(each), each)


def mask_others(mask: Tensor, ownership: Ownership) -> Tensor:
    """Return an additive mask that also hides the other sequences' slots, [prompts, 1, sequences, slots]."""
    return torch.where(ownership[..., : mask.shape[-1]], mask, torch.finfo(mask.dtype).min)


def reorder(ownership: Ownership, index: Int[Tensor, " rows"]) -> None:
    """Let sequence b go on from the past of sequence ``index[b]``, in place.

    Raises
    ------
    ValueError
        If a sequence is to go on from one of another prompt.
    """
    prompts, _, sequences, _ = ownership.shape
    index = index.to(ownership.device, torch.long)
    home = torch.arange(prompts, device=ownership.device).repeat_interleave(sequences)
    if not torch.equal(index // sequences, home):
        raise ValueError(
            f"in a cache with shared={sequences} a sequence goes on from one of the {sequences} that share its prompt; "
            f"got the order {index.tolist()}"
        )
    ownership.copy_(ownership.flatten(0, 2)[index].view_as(ownership))
