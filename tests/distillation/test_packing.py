"""Rows with several utterances: each is taught as if it were alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import LANGUAGE_MODELS, Tiny
from tiny_training import arguments, build_student, build_teacher, build_trainer, utterances
from torch import Tensor
from transformers import BloomConfig, BloomForCausalLM

from wandlib.attention.conversion import convert
from wandlib.attention.window import utterance_starts
from wandlib.distillation.collator import WandCollator
from wandlib.distillation.teacher import check_separation, is_packed
from wandlib.distillation.trainer import WandTrainer


def packed(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of several utterances."""
    flags = [torch.arange(len(sample["input_ids"])) < sample["conditioning"] for sample in samples]
    return {
        "input_ids": torch.cat([sample["input_ids"] for sample in samples]),
        "conditioning": torch.cat(flags),
        "position_ids": torch.cat([torch.arange(len(sample["input_ids"])) for sample in samples]),
    }


def rows() -> list[dict[str, Any]]:
    """Two packed rows, of 3 and 2 utterances, the second shorter."""
    return [packed(utterances(3)), packed(utterances(2, seed=1))]


def alone() -> list[dict[str, Any]]:
    return utterances(3) + utterances(2, seed=1)


def unlabelled(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name != "labels"}


def test_the_collator_knows_where_an_utterance_begins() -> None:
    """Nothing predicts the first token of any of them; padding on the right restarts nothing."""
    first = {"input_ids": [5, 6, 7, 8, 9], "conditioning": [0, 0, 1, 0, 0], "position_ids": [0, 1, 0, 1, 2]}
    batch = WandCollator()([first, {"input_ids": [1, 2], "conditioning": 1, "position_ids": [0, 1]}])
    assert batch["labels"].tolist() == [[-100, 6, -100, 8, 9], [-100, 2, -100, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 0, 0]]
    found = utterance_starts(batch["position_ids"], ~batch["attention_mask"].bool())
    assert found is not None
    assert found.nonzero().tolist() == [[0, 2]]
    assert is_packed(batch)
    assert not is_packed({name: value[1:] for name, value in batch.items()})
    for side in ("left", "right"):
        assert not is_packed(WandCollator(padding_side=side)(utterances(4)))  # type: ignore[arg-type]


def test_one_number_of_conditioning_tokens_is_no_answer_for_several_utterances() -> None:
    sample = {"input_ids": torch.arange(1, 9), "position_ids": torch.arange(4).repeat(2)}
    with pytest.raises(ValueError, match="utterance 0 of the batch holds several utterances, and one number"):
        WandCollator()([sample | {"conditioning": 2}])
    made = WandCollator()([sample | {"conditioning": torch.arange(8) % 4 < 2}])
    assert made["labels"].tolist() == [[-100, -100, 3, 4, -100, -100, 7, 8]]


def test_a_packed_row_may_be_longer_than_the_model_has_positions() -> None:
    sample = packed(utterances(3))
    longest = int(sample["position_ids"].max()) + 1
    assert len(sample["input_ids"]) > longest
    WandCollator(max_length=longest)([sample])
    with pytest.raises(ValueError, match=f"has {longest} tokens and max_length is {longest - 1}"):
        WandCollator(max_length=longest - 1)([sample])


@pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
def test_the_teacher_sees_each_utterance_alone(tiny: Tiny, tmp_path: Path) -> None:
    """Its states at every real position, in a batch of unequal packed rows."""
    teacher = tiny.build()
    trainer = build_trainer(tmp_path, teacher)
    states = trainer.teach(unlabelled(WandCollator()(rows())))[0]
    expected = [trainer.teach(unlabelled(WandCollator()([sample])))[0][0] for sample in alone()]
    lengths = [len(sample["input_ids"]) for sample in rows()]
    torch.testing.assert_close(states[0, : lengths[0]], torch.cat(expected[:3]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(states[1, : lengths[1]], torch.cat(expected[3:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["converted", "its own"])
def test_a_windowed_teacher_sees_each_utterance_alone(kind: str, tmp_path: Path) -> None:
    plain = build_teacher(tie_word_embeddings=False)
    trainer = build_trainer(tmp_path, plain)
    if kind == "converted":
        trainer.teacher = build_student(plain)
    else:
        student = get_peft_model(build_student(plain), LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
        trainer = WandTrainer(model=student, args=arguments(tmp_path), train_dataset=utterances(4))
    batch = unlabelled(WandCollator()([packed(utterances(3))]))
    expected = [build_trainer(tmp_path, plain).teach(unlabelled(WandCollator()([s])))[0][0] for s in utterances(3)]
    torch.testing.assert_close(trainer.teach(batch)[0][0], torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_packed_losses_are_those_of_the_utterances_alone(tmp_path: Path) -> None:
    """Loss and gradients of the whole step, student and teacher."""
    trainer = build_trainer(tmp_path)
    found = []
    for samples in (rows(), alone()):
        student = trainer.student.train()
        student.zero_grad()
        loss = trainer.compute_loss(student, WandCollator()(samples))
        loss.backward()
        found.append((loss, {name: value.grad.clone() for name, value in student.named_parameters()}))
    torch.testing.assert_close(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-3, atol=1e-5)


def test_padding_on_the_left_is_refused(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path)
    with pytest.raises(ValueError, match=r"padded on the right only: use WandCollator\(padding_side='right'\)"):
        trainer.teach(unlabelled(WandCollator(padding_side="left")(rows())))


def test_a_teacher_that_mixes_utterances_is_refused() -> None:
    """Bloom takes its positions from the mask."""
    torch.manual_seed(0)
    shape = {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    bloom = BloomForCausalLM(BloomConfig(**shape))
    with pytest.raises(ValueError, match="BloomForCausalLM does not keep the utterances of a packed row"):
        check_separation(bloom)
    for tiny in LANGUAGE_MODELS:
        check_separation(tiny.build().bfloat16())


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, 1, 2, 2, 3], "position_ids go from 2 to 2: .* rise by one within each"),
        ([0, 0, 1, 2, 3], "from 0 to 0"),
        ([0, 1, 0, 2, 3], "from 0 to 2"),
    ],
    ids=["repeated", "repeated at first", "one left out"],
)
def test_positions_that_tell_no_utterances_apart_are_refused(positions: list[int], message: str) -> None:
    """Transformers begins an utterance at both; where a position repeats, the window did, too."""
    sample = {"input_ids": [5, 6, 7, 8, 9], "conditioning": 1, "position_ids": positions}
    with pytest.raises(ValueError, match=f"utterance 0 of the batch: .*{message}"):
        WandCollator()([sample])
    model = convert(build_teacher().eval(), 4)
    ids, flags, places = torch.arange(5, 10)[None], torch.arange(5)[None] < 1, torch.tensor([positions])
    for options in ({"conditioning": flags, "use_cache": False}, {"use_cache": True}):
        with pytest.raises(ValueError, match=message):
            model(input_ids=ids, position_ids=places, **options)


def test_a_gap_in_positions_begins_no_utterance(tmp_path: Path) -> None:
    """Without an attention_mask transformers would begin one there: the teacher sees all, as with a mask."""
    trainer = build_trainer(tmp_path)
    batch = unlabelled(WandCollator()(utterances(1)))
    batch["position_ids"] = torch.arange(batch["input_ids"].shape[1])[None] + 3 * batch["conditioning"].logical_not()
    expected = trainer.teach(batch)[0]
    del batch["attention_mask"]
    torch.testing.assert_close(trainer.teach(batch)[0], expected)
    beside = {name: value.repeat(2, 1) for name, value in batch.items()}  # there transformers makes the mask of both
    beside["position_ids"][0] = torch.arange(beside["input_ids"].shape[1]) % 10
    with pytest.raises(ValueError, match="position_ids go from 8 to 12"):
        trainer.teach(beside)
