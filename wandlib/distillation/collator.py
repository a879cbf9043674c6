"""From single utterances to the batch that training takes.

A training sample is the sequence ``conditioning | generated``: its ``input_ids``, and what of it is which, told by
``labels``, by ``conditioning`` or by both. A batch has ``input_ids``, ``labels``, ``conditioning`` and
``attention_mask``, each [batch, time].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from wandlib.distillation.losses import IGNORE_INDEX


@dataclass(frozen=True)
class WandCollator:
    """Pad utterances into a batch, and check them.

    A sample is a mapping with

    - ``input_ids``: ints [time];
    - ``labels``: ints [time], aligned with ``input_ids`` (transformers shifts them when it computes the loss), -100
      outside the generated part. Default: ``input_ids`` outside the conditioning;
    - ``conditioning``: the length of the prefix, or a bool [time]. Default: where the labels are -100.

    Parameters
    ----------
    pad_token_id
        What ``input_ids`` are padded with; any valid token, since padding is seen by nothing.
    max_length
        An utterance with more tokens is an error; None: no limit.
    padding_side
        "right" or "left"; on the left, ``position_ids`` are added, so that the first token has position 0.
    pad_to_multiple_of
        Round the batch's length up: fewer shapes, for which matrix kernels are built and kept.
    """

    pad_token_id: int = 0
    max_length: int | None = None
    padding_side: Literal["right", "left"] = "right"
    pad_to_multiple_of: int = 1

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Raises
        ------
        ValueError
            If an utterance has no generated token or too many tokens, or its parts do not fit together.
        """
        rows = [self._row(sample, index) for index, sample in enumerate(samples)]
        longest = max(len(ids) for ids, _, _ in rows)
        longest += -longest % self.pad_to_multiple_of
        shape = len(rows), longest
        input_ids, labels = torch.full(shape, self.pad_token_id), torch.full(shape, IGNORE_INDEX)
        conditioning, attention_mask = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.long)
        for index, (ids, target, prefix) in enumerate(rows):
            place = slice(0, len(ids)) if self.padding_side == "right" else slice(longest - len(ids), longest)
            input_ids[index, place], labels[index, place] = ids, target
            conditioning[index, place], attention_mask[index, place] = prefix, 1
        batch = {
            "input_ids": input_ids,
            "labels": labels,
            "conditioning": conditioning,
            "attention_mask": attention_mask,
        }
        if self.padding_side == "left":
            batch["position_ids"] = (attention_mask.cumsum(1) - 1).clamp(min=0)
        return batch

    def _row(
        self, sample: Mapping[str, Any], index: int
    ) -> tuple[Int[Tensor, " time"], Int[Tensor, " time"], Bool[Tensor, " time"]]:
        where = f"utterance {index} of the batch"
        if "input_ids" not in sample or not {"labels", "conditioning"} & set(sample):
            raise ValueError(f"{where} needs input_ids, and labels or conditioning; it has {', '.join(sorted(sample))}")
        ids = torch.as_tensor(sample["input_ids"], dtype=torch.long)
        if ids.ndim != 1 or not len(ids):
            raise ValueError(f"{where} is empty or no list of tokens: input_ids have the shape {list(ids.shape)}")
        if self.max_length is not None and len(ids) > self.max_length:
            raise ValueError(
                f"{where} has {len(ids)} tokens and max_length is {self.max_length}: split it or leave it out, or "
                "raise max_length as far as the model's positions reach"
            )
        given = sample.get("conditioning")
        if given is None:
            conditioning = torch.as_tensor(sample["labels"]) == IGNORE_INDEX
        elif isinstance(given, int):
            conditioning = torch.arange(len(ids)) < given
        else:
            conditioning = torch.as_tensor(given, dtype=torch.bool)
        labels = torch.as_tensor(sample.get("labels", ids)).clone()
        if not ids.shape == labels.shape == conditioning.shape:
            raise ValueError(
                f"{where} has {len(ids)} input_ids, labels of shape {list(labels.shape)} and conditioning of shape "
                f"{list(conditioning.shape)}: they must be equally long"
            )
        if "labels" not in sample:
            labels[conditioning] = IGNORE_INDEX
        labels[0] = IGNORE_INDEX  # nothing comes before it that could predict it
        if not bool((labels != IGNORE_INDEX).any()):
            raise ValueError(
                f"{where} has no generated token: all its {len(ids)} tokens are conditioning or labelled "
                f"{IGNORE_INDEX}; leave it out of the dataset"
            )
        return ids, labels, conditioning
