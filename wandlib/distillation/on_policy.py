"""Sequences that the student itself generates, for the teacher to score: generalised knowledge distillation.

Trained on the ground truth alone, a student never sees its own mistakes; at inference it has to go on from them. Here
the generated part of a batch is replaced by samples of the student (GKD, arXiv 2306.13649; beyond the WAND paper).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from wandlib.distillation.hidden_states import eval_mode
from wandlib.distillation.losses import IGNORE_INDEX


def sample_student(
    student: Any, batch: dict[str, Tensor], labels: Int[Tensor, "batch time"]
) -> tuple[dict[str, Tensor], Int[Tensor, "batch new_time"]]:
    """Let the student go on from the conditioning of a batch, at temperature 1, for as long as the longest utterance.

    Parameters
    ----------
    student
        A converted model; it decodes under its present window, hard.
    batch
        ``input_ids``, ``conditioning`` and ``attention_mask``, as the
        :class:`~wandlib.distillation.collator.WandCollator` makes them.
    labels
        Aligned with ``input_ids``; only their number matters.

    Returns
    -------
    The batch (padded on the left) and its labels, as they would be for utterances of the dataset.

    Raises
    ------
    ValueError
        If the conditioning is not a prefix.
    """
    real, conditioning = batch["attention_mask"].bool(), batch["conditioning"]
    lengths = conditioning.sum(1)
    if not torch.equal(conditioning, real & (real.cumsum(1) <= lengths[:, None])) or not bool(lengths.all()):
        raise ValueError("on-policy samples need conditioning that is a prefix of every utterance: set on_policy to 0")
    longest = int(lengths.max())
    known = torch.arange(longest, device=lengths.device) >= longest - lengths[:, None]
    prompt = batch["input_ids"].new_zeros(known.shape)
    prompt[known] = batch["input_ids"][conditioning]
    end = student.generation_config.eos_token_id
    ends = [] if end is None else [end] if isinstance(end, int) else list(end)
    with eval_mode(student):
        sequences = student.generate(
            input_ids=prompt,
            attention_mask=known.long(),
            max_new_tokens=int((labels != IGNORE_INDEX).sum(1).max()),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            use_cache=True,
            pad_token_id=ends[0] if ends else 0,
        )
    generated = sequences[:, longest:]
    ended = torch.isin(generated, generated.new_tensor(ends)).cumsum(1)
    alive = torch.cat([torch.ones_like(ended[:, :1]), ended[:, :-1] == 0], dim=1).bool()
    attention_mask = torch.cat([known, alive], dim=1)
    sampled = {
        "input_ids": sequences,
        "conditioning": torch.cat([known, torch.zeros_like(alive)], dim=1),
        "attention_mask": attention_mask.long(),
        "position_ids": (attention_mask.cumsum(1) - 1).clamp(min=0),
    }
    return sampled, sequences.masked_fill(~attention_mask | sampled["conditioning"], IGNORE_INDEX)
