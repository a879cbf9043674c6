"""Collate single utterances into the batch that training takes.

A training sample is the sequence ``conditioning | generated``: its ``input_ids``, and which part is which, given by
``labels``, by ``conditioning`` or by both. A batch has ``input_ids``, ``labels``, ``conditioning`` and
``attention_mask``, each [batch, time], and the further tensors of the samples.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from wandlib.attention.checks import check_number
from wandlib.attention.window import utterance_starts
from wandlib.distillation.losses import IGNORE_INDEX

OWN = ("input_ids", "labels", "conditioning", "attention_mask")


@dataclass(frozen=True)
class WandCollator:
    """Pad utterances into a batch, and check them.

    A sample is a mapping with

    - ``input_ids``: ints [time];
    - ``labels``: ints [time], aligned with ``input_ids`` (transformers shifts them when it computes the loss), -100
      outside the generated part. Default: ``input_ids`` outside the conditioning;
    - ``conditioning``: the length of the prefix, or a bool [time]. Default: where the labels are -100;
    - ``position_ids``: ints [time], where several utterances are packed into one row: they restart with each;
    - any other tensors and arrays: padded with 0 along time where their first axis is time, and stacked. Numbers,
      strings and lists of other names are left out.

    Parameters
    ----------
    pad_token_id
        Token to pad ``input_ids`` with; any valid one, since padding is seen by nothing.
    max_length
        Number of positions; a longer utterance is an error. None: no limit.
    padding_side
        "right" or "left"; on the left, ``position_ids`` are added, so that the first token has position 0.
    pad_to_multiple_of
        Round the batch's length up, as far as ``max_length``: fewer shapes, for which matrix kernels are built and
        cached.

    Raises
    ------
    ValueError
        If a number is below 0 (``pad_token_id``) or 1 (the others), or ``padding_side`` is no side.
    """

    pad_token_id: int = 0
    max_length: int | None = None
    padding_side: Literal["right", "left"] = "right"
    pad_to_multiple_of: int = 1

    def __post_init__(self) -> None:
        for name, least in (("pad_token_id", 0), ("pad_to_multiple_of", 1), ("max_length", 1)):
            if (value := getattr(self, name)) is not None or name != "max_length":
                object.__setattr__(self, name, check_number(name, value, least))
        if self.padding_side not in ("right", "left"):
            raise ValueError(f"padding_side must be 'right' or 'left'; got {self.padding_side!r}")

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Raises
        ------
        ValueError
            If an utterance has no generated token or too many tokens, or its parts do not fit together.
        """
        rows = [self._row(sample, f"utterance {index} of the batch") for index, sample in enumerate(samples)]
        for index, row in enumerate(rows):
            if row.keys() != rows[0].keys():
                raise ValueError(
                    f"utterance {index} of the batch has {', '.join(row)}, and utterance 0 has {', '.join(rows[0])}: "
                    "all need the same tensors"
                )
        longest = max(len(row["input_ids"]) for row in rows)
        rounded = longest + -longest % self.pad_to_multiple_of
        if self.max_length is not None and self.padding_side == "right" and "position_ids" not in rows[0]:
            rounded = max(longest, min(rounded, self.max_length))  # the model counts positions itself, padding's too
        batch = {name: self._stack(name, rows, rounded) for name in rows[0]}
        if self.padding_side == "left" and "position_ids" not in batch:
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return batch

    def _stack(self, name: str, rows: Sequence[Mapping[str, Tensor]], longest: int) -> Tensor:
        values = [row[name] for row in rows]
        if all(row[name].shape[:1] == row["input_ids"].shape for row in rows):  # its first axis is time
            filling = {"input_ids": self.pad_token_id, "labels": IGNORE_INDEX}.get(name, 0)
            values = [self._pad(value, longest - len(value), filling) for value in values]
        shapes = [list(value.shape) for value in values]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(
                f"the utterances' {name} have the shapes {', '.join(map(str, shapes))}: they are stacked where these "
                "are equal, or padded where the first axis is the number of input_ids"
            )
        return torch.stack(values)

    def _pad(self, value: Tensor, missing: int, filling: int) -> Tensor:
        padding = value.new_full((missing, *value.shape[1:]), filling)
        return torch.cat([value, padding] if self.padding_side == "right" else [padding, value])

    def _row(self, given: Mapping[str, Any], where: str) -> dict[str, Tensor]:
        sample = {name: value for name, value in given.items() if value is not None}
        if "input_ids" not in sample or not {"labels", "conditioning"} & set(sample):
            raise ValueError(f"{where} needs input_ids, and labels or conditioning; it has {', '.join(sorted(sample))}")
        for name in {"input_ids", "labels", "position_ids"} & set(sample):
            if np.size(sample[name]) and np.asarray(sample[name]).dtype.kind not in "iu":
                raise ValueError(f"{name} of {where} are whole numbers; got {np.asarray(sample[name]).dtype}")
        ids = torch.as_tensor(sample["input_ids"], dtype=torch.long)
        if ids.ndim != 1 or not len(ids):
            raise ValueError(f"{where} is empty or no list of tokens: input_ids have the shape {list(ids.shape)}")
        if not np.all(np.asarray(sample.get("attention_mask", 1))):
            raise ValueError(f"{where} is already padded (its attention_mask has zeros): give utterances as they are")
        conditioning = conditioning_of(sample, len(ids), where)
        labels = torch.as_tensor(sample.get("labels", ids), dtype=torch.long).clone()
        further = {
            name: torch.as_tensor(value)
            for name, value in sample.items()
            if name == "position_ids" or (name not in OWN and isinstance(value, Tensor | np.ndarray))
        }
        positions = further.get("position_ids", torch.arange(len(ids)))
        if not ids.shape == labels.shape == conditioning.shape == positions.shape[-1:]:
            raise ValueError(
                f"{where} has {len(ids)} input_ids, labels of shape {list(labels.shape)}, conditioning of shape "
                f"{list(conditioning.shape)} and {positions.shape[-1]} position_ids: they must be equally long"
            )
        if self.max_length is not None and int(positions.max()) >= self.max_length:
            raise ValueError(
                f"{where} has {int(positions.max()) + 1} tokens and max_length is {self.max_length}: split it or leave "
                "it out, or raise max_length as far as the model's positions reach"
            )
        if "labels" not in sample:
            labels[conditioning] = IGNORE_INDEX
        labels[0] = IGNORE_INDEX  # nothing comes before it that could predict it
        if positions.ndim == 1:
            starts = starts_of(positions, where)
            labels[starts] = IGNORE_INDEX
            if bool(starts.any()) and "conditioning" in sample and np.ndim(sample["conditioning"]) == 0:
                raise ValueError(
                    f"{where} holds several utterances, and one number of conditioning tokens would be the first one's "
                    "alone: give a bool for each token"
                )
        if not bool((labels != IGNORE_INDEX).any()):
            raise ValueError(
                f"{where} has no generated token: all its {len(ids)} tokens are conditioning or labeled "
                f"{IGNORE_INDEX}; leave it out of the dataset"
            )
        mask = torch.ones_like(ids)
        return {"input_ids": ids, "labels": labels, "conditioning": conditioning, "attention_mask": mask} | further


def starts_of(position_ids: Tensor, where: str) -> Tensor:
    """Return where the utterances of a packed sample begin that are not its first, a bool for each token."""
    try:
        found = utterance_starts(position_ids[None])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return torch.zeros_like(position_ids, dtype=torch.bool) if found is None else found[0]


def conditioning_of(sample: Mapping[str, Any], length: int, where: str) -> Tensor:
    """Return which tokens of a sample are conditioning, a bool for each."""
    given = sample.get("conditioning")
    if given is None:
        return torch.as_tensor(sample["labels"]) == IGNORE_INDEX
    if np.ndim(given) > 0:
        return torch.as_tensor(given, dtype=torch.bool)
    whole = isinstance(given, float | np.floating) and float(given).is_integer()
    try:
        count = int(given) if whole else operator.index(given)
    except TypeError:
        count = -1
    if count < 0 or isinstance(given, bool | np.bool_):
        raise ValueError(f"conditioning of {where} is the length of the prefix or a bool for each token; got {given!r}")
    return torch.arange(length) < min(count, length)
