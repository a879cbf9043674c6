"""The teacher's side of a training step: what it makes of a batch under full attention.

Packed rows hold several utterances, told apart by ``position_ids`` that restart. The teacher must see each as if it
were alone. transformers keeps them apart by itself, but only where no ``attention_mask`` is given, and only in models
that pass ``position_ids`` on to their mask: this is tried out before the first packed batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wandlib.attention.conversion import full_attention
from wandlib.attention.hook import WindowHook
from wandlib.attention.models import base_decoder, inner_model, new_tokens
from wandlib.attention.window import utterance_starts
from wandlib.distillation.hidden_states import eval_mode, head_of, with_hidden_states


def teacher_states(
    teacher: nn.Module, batch: Mapping[str, Any], *, ends_in_head: bool
) -> tuple[Float[Tensor, "batch time features"], nn.Module | None]:
    """Return the input of the teacher's head under full attention, and the head; or its logits, and None.

    Parameters
    ----------
    teacher
        A causal decoder with a head, converted or not.
    batch
        Inputs of its forward; ``conditioning`` and ``block`` are left out.
    ends_in_head
        Whether its logits are the output of its head, so that the head may be applied later.

    Raises
    ------
    ValueError
        If packed rows are padded on the left, or positions do not tell the utterances apart.
    """
    inputs = with_right_mask(batch) | {"use_cache": False}
    for told in ("conditioning", "block"):
        inputs.pop(told, None)
    with eval_mode(teacher), unlimited(teacher):
        if not ends_in_head:
            return teacher(**inputs).logits, None
        head = head_of(teacher)
        return with_hidden_states(teacher, head, inputs, lambda states: states), head


def unlimited(model: nn.Module) -> Any:
    """Return the context in which a model, converted or not, runs under full attention."""
    converted = isinstance(getattr(base_decoder(model), "wand", None), WindowHook)
    return full_attention(model) if converted else nullcontext()


def is_packed(batch: Mapping[str, Any]) -> bool:
    """Return whether a row of a batch holds several utterances."""
    mask, positions = batch.get("attention_mask"), batch.get("position_ids")
    if positions is None or positions.ndim != 2:
        return False
    if mask is None or mask.ndim != 2:
        return utterance_starts(positions) is not None
    return utterance_starts(positions.expand(len(mask), -1), ~mask.bool()) is not None


def with_right_mask(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the batch, with an ``attention_mask`` of ones where rows are not packed, and with none where they are.

    Without one, transformers takes every position that does not follow on the one before for a new utterance. Packed
    rows need that; in others, positions may leave some out. Padding on the right needs no mask: nothing sees it.
    """
    kept = dict(batch)
    mask, positions = kept.get("attention_mask"), kept.get("position_ids")
    if not is_packed(batch):
        if mask is None and positions is not None:
            kept["attention_mask"] = torch.ones(new_tokens(kept).shape[:2], dtype=torch.long, device=positions.device)
        return kept
    if mask is not None and (mask.ndim != 2 or (mask[:, 1:] > mask[:, :-1]).any()):
        raise ValueError(
            "rows with several utterances (position_ids that restart) need a 2-D attention_mask that is padded on the "
            "right only: use WandCollator(padding_side='right'), or pack rows of equal length"
        )
    kept.pop("attention_mask", None)
    return kept


def check_separation(teacher: nn.Module) -> None:
    """Raise ValueError unless a model keeps the utterances of a packed row apart: found by trying, on rows of two.

    The second utterance may not depend on the first, and has to be what it is alone, up to rounding.
    """
    device = next(teacher.parameters()).device
    ids, positions = torch.arange(1, 9, device=device)[None], torch.arange(4, device=device)[None]
    first, second = ids.split(4, 1)

    def logits(ids: Tensor, positions: Tensor) -> Tensor:
        return teacher(input_ids=ids, position_ids=positions, use_cache=False).logits[:, -4:].float()

    with eval_mode(teacher), unlimited(teacher):
        after_one = logits(ids, positions.repeat(1, 2))
        after_other = logits(torch.cat((first.flip(1), second), 1), positions.repeat(1, 2))
        alone = logits(second, positions)
    mixed = (after_one - after_other).abs().max() > 1e-4 * alone.std()
    moved = (after_one - alone).abs().max() > 0.3 * alone.std()  # a tiny model in bfloat16 rounds by 0.03
    if mixed or moved:
        raise ValueError(
            f"{type(inner_model(teacher)).__name__} does not keep the utterances of a packed row (position_ids that "
            "restart) apart: give it one utterance in each row"
        )
