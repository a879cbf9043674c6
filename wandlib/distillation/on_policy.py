"""On-policy batches: sequences that the student itself generates, for the teacher to score.

Trained on the ground truth alone, a student never sees its own mistakes; at inference it has to continue from them.
Here the generated part of a batch is replaced by samples of the student (generalized knowledge distillation, GKD, arXiv
2306.13649; not part of the WAND paper).
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
    """Sample continuations of a batch's conditioning from the student, at temperature 1.

    Parameters
    ----------
    student
        A converted model; it decodes under its current window, hard.
    batch
        ``input_ids``, ``conditioning`` and ``attention_mask``, as the
        :class:`~wandlib.distillation.collator.WandCollator` makes them.
    labels
        Targets of the batch, aligned with ``input_ids``; they only determine the number of tokens to sample.

    Returns
    -------
    The batch (padded on the left) and its labels, as for utterances of the dataset.

    Raises
    ------
    ValueError
        If the conditioning is not a prefix, or the batch has further tensors, which belong to the utterances replaced.
    """
    if further := set(batch) - {"input_ids", "attention_mask", "position_ids", "conditioning"}:
        raise ValueError(f"on-policy samples have no {', '.join(sorted(further))}: set on_policy to 0")
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
