"""On-policy batches: sequences that the student itself generates, for the teacher to score.

Trained on the ground truth alone, a student never sees its own mistakes; at inference it has to continue from them.
Here the generated part of a batch is replaced by samples of the student (generalized knowledge distillation, GKD, arXiv
2306.13649; not part of the WAND paper). Its settings of generation play no part: under a penalty on repetition, say, it
would learn from sequences that its distribution does not have.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import GenerationConfig

from wandlib.attention.models import inner_model
from wandlib.distillation.hidden_states import eval_mode
from wandlib.distillation.losses import IGNORE_INDEX


def sample_student(
    student: Any, batch: dict[str, Tensor], labels: Int[Tensor, "batch time"]
) -> tuple[dict[str, Tensor], Int[Tensor, "batch new_time"]]:
    """Sample continuations of a batch's conditioning from the student's distribution, at temperature 1.

    Parameters
    ----------
    student
        A converted model; it decodes under its current window, hard.
    batch
        ``input_ids``, ``conditioning`` and, where there is padding, ``attention_mask``, as the
        :class:`~wandlib.distillation.collator.WandCollator` makes them.
    labels
        Targets of the batch, aligned with ``input_ids``; they only say how many tokens each sample may have. Where
        the longest conditioning leaves no positions for so many, all samples end with the student's last position.

    Returns
    -------
    The batch (padded on the left) and its labels, as for utterances of the dataset.

    Raises
    ------
    ValueError
        If there is no conditioning, or it is not a prefix, or the batch has further tensors, which belong to the
        utterances replaced.
    """
    if further := set(batch) - {"input_ids", "attention_mask", "position_ids", "conditioning"}:
        raise ValueError(f"on-policy samples have no {', '.join(sorted(further))}: set on_policy to 0")
    if "conditioning" not in batch:
        raise ValueError("on-policy samples go on from batch['conditioning'], a bool for each token, and there is none")
    conditioning = batch["conditioning"]
    real = batch.get("attention_mask", torch.ones_like(conditioning)).bool()
    lengths = conditioning.sum(1)
    if not torch.equal(conditioning, real & (real.cumsum(1) <= lengths[:, None])) or not bool(lengths.all()):
        raise ValueError("on-policy samples need conditioning that is a prefix of every utterance: set on_policy to 0")
    longest, allowed = int(lengths.max()), (labels != IGNORE_INDEX).sum(1)
    known = torch.arange(longest, device=lengths.device) >= longest - lengths[:, None]
    prompt = batch["input_ids"].new_zeros(known.shape)
    prompt[known] = batch["input_ids"][conditioning]
    end = student.generation_config.eos_token_id
    ends = [] if end is None else [end] if isinstance(end, int) else list(end)
    room = positions_of(student, real) - longest
    plain = GenerationConfig(
        max_new_tokens=min(room, int(allowed.max())),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        use_cache=True,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
    )
    with eval_mode(student), no_settings(student):
        sequences = student.generate(input_ids=prompt, attention_mask=known.long(), generation_config=plain)
    generated = sequences[:, longest:]
    ended = torch.isin(generated, generated.new_tensor(ends)).cumsum(1)
    alive = torch.cat([torch.ones_like(ended[:, :1]), ended[:, :-1] == 0], dim=1).bool()
    alive &= torch.arange(alive.shape[1], device=alive.device) < allowed[:, None]
    attention_mask = torch.cat([known, alive], dim=1)
    sampled = {
        "input_ids": sequences,
        "conditioning": torch.cat([known, torch.zeros_like(alive)], dim=1),
        "attention_mask": attention_mask.long(),
        "position_ids": (attention_mask.cumsum(1) - 1).clamp(min=0),
    }
    return sampled, sequences.masked_fill(~attention_mask | sampled["conditioning"], IGNORE_INDEX)


def positions_of(student: Any, real: Bool[Tensor, "batch time"]) -> int:
    """Return how many tokens the student takes: what its config says, or more where a batch has more."""
    config = inner_model(student).config.get_text_config(decoder=True)
    return max(getattr(config, "max_position_embeddings", None) or sys.maxsize, int(real.sum(1).max()))


@contextmanager
def no_settings(student: Any) -> Iterator[None]:
    """Take away the student's own settings, which ``generate`` mixes into those it is given, until the block ends."""
    holders = [each for each in (student, inner_model(student)) if "generation_config" in vars(each)]  # peft's, too
    kept = [each.generation_config for each in holders]
    try:
        for holder in holders:
            holder.generation_config = GenerationConfig()
        yield
    finally:
        for holder, own in zip(holders, kept, strict=True):
            holder.generation_config = own
