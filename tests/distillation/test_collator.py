"""WandCollator: batches, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wandlib.distillation.collator import WandCollator

SHORT = {"input_ids": [7, 8, 9, 10], "conditioning": 2}
LONG = {"input_ids": [1, 2, 3, 4, 5, 6], "labels": [-100, -100, -100, 4, -100, 6]}


def test_pads_on_the_right() -> None:
    batch = WandCollator(pad_token_id=50)([SHORT, LONG])
    assert {name: value.int().tolist() for name, value in batch.items()} == {
        "input_ids": [[7, 8, 9, 10, 50, 50], [1, 2, 3, 4, 5, 6]],
        "labels": [[-100, -100, 9, 10, -100, -100], [-100, -100, -100, 4, -100, 6]],
        "conditioning": [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 1, 0]],
        "attention_mask": [[1, 1, 1, 1, 0, 0], [1] * 6],
    }
    assert batch["conditioning"].dtype == torch.bool


def test_pads_on_the_left_with_positions() -> None:
    batch = WandCollator(padding_side="left", pad_to_multiple_of=4)([SHORT, LONG])
    assert batch["input_ids"].tolist() == [[0, 0, 0, 0, 7, 8, 9, 10], [0, 0, 1, 2, 3, 4, 5, 6]]
    assert batch["labels"][0].tolist() == [-100] * 6 + [9, 10]
    assert batch["position_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 2, 3], [0, 0, 0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_labels_and_conditioning_may_both_be_given(kind: Any) -> None:
    """A token may be generated and not counted, or conditioning and counted."""
    sample = {
        "input_ids": kind([1, 2, 3, 4]),
        "labels": kind([-100, 2, -100, 4]),
        "conditioning": kind([True, True, False, False]),
    }
    batch = WandCollator()([sample])
    assert batch["labels"].tolist() == [[-100, 2, -100, 4]]
    assert batch["conditioning"].tolist() == [[True, True, False, False]]
    assert list(sample["labels"]) == [-100, 2, -100, 4]


def test_nothing_predicts_the_first_token() -> None:
    for side in ("left", "right"):
        batch = WandCollator(padding_side=side)([{"input_ids": [1, 2, 3], "conditioning": 0}, LONG])  # type: ignore[arg-type]
        assert batch["labels"][0][batch["attention_mask"][0].bool()].tolist() == [-100, 2, 3]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"input_ids": [1, 2]}, "needs input_ids, and labels or conditioning; it has input_ids"),
        ({"labels": [1, 2]}, "it has labels"),
        ({"input_ids": [1, 2], "conditioning": 2}, "utterance 1 of the batch has no generated token: all its 2"),
        ({"input_ids": [1], "conditioning": 0}, "no generated token"),
        ({"input_ids": [], "conditioning": 0}, "is empty"),
        ({"input_ids": [[1, 2]], "conditioning": 1}, r"no list of tokens: input_ids have the shape \[1, 2\]"),
        ({"input_ids": [1] * 9, "conditioning": 1}, "has 9 tokens and max_length is 8"),
        ({"input_ids": [1, 2, 3], "labels": [1, 2]}, r"3 input_ids, labels of shape \[2\]"),
        ({"input_ids": [1, 2, 3], "conditioning": [True]}, r"conditioning of shape \[1\]"),
    ],
)
def test_refuses(sample: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WandCollator(max_length=8)([LONG, sample])
