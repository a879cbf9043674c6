"""WandCollator: batches, and what it refuses."""

from __future__ import annotations

from typing import Any

import jaxtyping
import numpy as np
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
    "count",
    [2, 2.0, np.int64(2), np.uint8(2), np.float32(2), np.array(2), torch.tensor(2), torch.tensor(2, dtype=torch.int8)],
    ids=lambda count: f"{type(count).__name__} {getattr(count, 'dtype', '')}",
)
def test_conditioning_of_any_whole_number(count: Any) -> None:
    assert WandCollator()([SHORT | {"conditioning": count}])["conditioning"].tolist() == [[True, True, False, False]]


def test_none_is_as_if_it_were_not_there() -> None:
    sample = {"input_ids": [5, 6, 7], "conditioning": 1}
    nothing = dict.fromkeys(("labels", "attention_mask"))
    one, other = (WandCollator()([given]) for given in (sample, sample | nothing))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_one_flag_is_no_number() -> None:
    """A tensor of one bool is the mask of an utterance of one token, not the number 1."""
    with pytest.raises(ValueError, match="no generated token"):
        WandCollator()([{"input_ids": [3], "conditioning": torch.tensor([True])}])


def test_further_tensors_pass_through() -> None:
    """Padded along time where that is their first axis, else stacked; what is no tensor stays behind."""

    def sample(length: int) -> dict[str, Any]:
        return {
            "input_ids": list(range(1, length + 1)),
            "conditioning": 1,
            "text_mask": np.arange(length) < 2,
            "style": torch.full((length, 2), 0.5),
            "speaker": torch.arange(3.0),
            "rate": torch.tensor(24_000),
            "name": "clara",
            "seconds": 1.5,
            "words": ["a", "b"],
        }

    for side in ("right", "left"):
        batch = WandCollator(padding_side=side)([sample(4), sample(2)])  # type: ignore[arg-type]
        assert set(batch) - {"position_ids"} == {
            "input_ids", "labels", "conditioning", "attention_mask", "text_mask", "style", "speaker", "rate",
        }  # fmt: skip
        mask = batch["attention_mask"].bool()
        assert batch["text_mask"].dtype == torch.bool
        assert batch["text_mask"][1].tolist() == (mask[1] & (batch["input_ids"][1] > 0)).tolist()
        assert torch.equal(batch["style"], 0.5 * mask[..., None].expand(2, 4, 2))
        assert batch["speaker"].tolist() == [[0.0, 1.0, 2.0]] * 2
        assert batch["rate"].tolist() == [24_000, 24_000]


def test_a_size_that_happens_to_be_the_length_is_not_time() -> None:
    samples = [{"input_ids": [1] * length, "conditioning": 1, "speaker": torch.ones(4)} for length in (4, 6)]
    assert WandCollator()(samples)["speaker"].shape == (2, 4)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (SHORT | {"speaker": torch.ones(5)}, r"speaker have the shapes \[3\], \[5\]: they are stacked where"),
        (SHORT, "utterance 1 of the batch has input_ids, .*mask, and utterance 0 has .*speaker: all need the same"),
        (SHORT | {"conditioning": -1}, r"conditioning of utterance 1 .* bool for each token; got -1"),
        (SHORT | {"conditioning": 2.5}, r"got 2\.5"),
        (SHORT | {"conditioning": True}, "got True"),
        (SHORT | {"attention_mask": [1, 1, 1, 0]}, r"already padded \(its attention_mask has zeros\)"),
        (SHORT | {"position_ids": [0, 1, 2]}, r"and 3 position_ids: they must be equally long"),
    ],
)
def test_refuses_what_does_not_fit(sample: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WandCollator()([LONG | {"speaker": torch.ones(3)}, sample])


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
        (
            {"input_ids": [1.7, 2.2], "conditioning": 1},
            "input_ids of utterance 1 of the batch are whole numbers; got",
        ),
        ({"input_ids": [1, 2], "labels": torch.ones(2)}, "labels of utterance 1 of the batch are whole numbers"),
        ({"input_ids": [1, 2], "labels": None}, "needs input_ids, and labels or conditioning"),
    ],
)
def test_refuses(sample: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WandCollator(max_length=8)([LONG, sample])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("padding_side", "Right"),
        ("pad_to_multiple_of", 0),
        ("pad_to_multiple_of", -8),
        ("max_length", 0),
        ("pad_token_id", -1),
    ],
)
def test_refuses_fields_that_mean_nothing(field: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, "Right" padded on the left, 0 divided by zero at the first batch and -1 failed in the embedding."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no checks of types either
    with pytest.raises(ValueError, match=f"{field} .*got {value!r}"):
        WandCollator(**{field: value})


def test_rounding_up_stays_within_the_models_positions() -> None:
    collator = WandCollator(max_length=10, pad_to_multiple_of=8)
    samples = [{"input_ids": [1] * length, "conditioning": 1} for length in (9, 7, 10)]
    assert [collator([sample])["input_ids"].shape[1] for sample in samples] == [10, 8, 10]
    packed = {"input_ids": [1] * 11, "conditioning": [True] + [False] * 10, "position_ids": [*range(6), *range(5)]}
    assert collator([packed])["input_ids"].shape[1] == 16  # whose padding has position 0
    assert WandCollator(padding_side="left", max_length=10, pad_to_multiple_of=8)(samples)["input_ids"].shape[1] == 16


def test_numbers_may_be_whole_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no checks of types either
    collator = WandCollator(0.0, max_length=10.0, pad_to_multiple_of=8.0)  # type: ignore[arg-type]
    assert collator([SHORT])["input_ids"].shape == (1, 8)
