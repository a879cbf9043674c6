"""On-policy batches: the student's own samples, from its distribution alone, and no longer than what they replace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import LANGUAGE_MODELS
from tiny_training import build_student, build_teacher, utterances
from torch import Tensor
from transformers import GenerationConfig

from wandlib.distillation.collator import WandCollator
from wandlib.distillation.on_policy import sample_student


def batch(data: list[dict[str, Any]]) -> tuple[dict[str, Tensor], Tensor]:
    inputs = WandCollator()(data)
    labels = inputs.pop("labels")
    return inputs, labels


def utterance(conditioning: int, generated: int) -> dict[str, Any]:
    return {"input_ids": [1 + place % 90 for place in range(conditioning + generated)], "conditioning": conditioning}


def sampled_lengths(student: Any, *parts: tuple[int, int]) -> list[int]:
    """How many tokens are sampled where utterances of these parts are replaced."""
    inputs, labels = batch([utterance(*lengths) for lengths in parts])
    sampled, new_labels = sample_student(student, inputs, labels)
    counted = new_labels != -100
    assert torch.equal(counted, sampled["attention_mask"].bool() & ~sampled["conditioning"])
    found: list[int] = counted.sum(1).tolist()
    return found


def test_on_policy_batches_go_on_from_the_conditioning() -> None:
    student = build_student(build_teacher()).eval()
    student.generation_config.eos_token_id = list(range(50, 97))  # any of these ends an utterance: half of them soon
    inputs, labels = batch(utterances(8))
    sampled, new_labels = sample_student(student, inputs, labels)
    for row in range(8):
        real = sampled["attention_mask"][row].bool()
        ids, conditioning = sampled["input_ids"][row, real], sampled["conditioning"][row, real]
        assert torch.equal(ids[conditioning], inputs["input_ids"][row, inputs["conditioning"][row]])
        generated = ids[~conditioning]
        assert bool((generated[:-1] < 50).all())  # nothing after the end
        assert torch.equal(new_labels[row, real][~conditioning], generated)
        assert bool((new_labels[row][~real] == -100).all())
        assert bool((new_labels[row, real][conditioning] == -100).all())
        assert torch.equal(sampled["position_ids"][row, real], torch.arange(int(real.sum())))
    assert not student.training
    inputs["conditioning"][0, -1] = True
    with pytest.raises(ValueError, match="a prefix of every utterance"):
        sample_student(student, inputs, labels)


SETTINGS = [
    {"repetition_penalty": 10.0},
    {"no_repeat_ngram_size": 1},
    {"min_p": 0.5},
    {"num_beams": 3},
    {"num_return_sequences": 2},
    {"guidance_scale": 2.0},
    {"suppress_tokens": list(range(40))},
]


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings)))
def test_settings_of_generation_play_no_part(settings: dict[str, Any], peft: bool) -> None:
    """``generate`` takes from the model's own settings what it is not given."""
    found = []
    for given in ({}, settings):
        student = build_student(build_teacher())
        own = GenerationConfig(do_sample=True, **given)
        if peft:
            student = get_peft_model(student, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
        student.generation_config = own
        torch.manual_seed(0)
        found.append(sample_student(student, *batch(utterances(4)))[0]["input_ids"])
        assert student.generation_config is own
    assert torch.equal(*found)


def test_samples_have_the_frequencies_of_the_distribution() -> None:
    """Of the first token after one prompt, against the softmax; seen: 0.03."""
    student = build_student(build_teacher()).eval()
    inputs, labels = batch([utterance(5, 1)] * 4000)
    torch.manual_seed(0)
    sampled, _ = sample_student(student, inputs, labels)
    frequency = torch.bincount(sampled["input_ids"][:, -1], minlength=97) / 4000
    prompt = {name: value[:1, :5] for name, value in inputs.items()}
    expected = student(**prompt).logits[0, -1].softmax(-1)
    assert (frequency - expected).abs().sum() / 2 < 0.1


def test_no_sample_is_longer_than_the_utterance_it_replaces() -> None:
    student = build_student(build_teacher())
    student.generation_config.eos_token_id = None
    assert sampled_lengths(student, (20, 3), (4, 30), (9, 1)) == [3, 30, 1]


def test_samples_end_with_the_last_position() -> None:
    """Prompts are padded to the longest: after it, GPT-2 has no positions left for the most that is asked for."""
    gpt2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "gpt2")
    student = build_student(gpt2.build(n_positions=64))
    assert sampled_lengths(student, (50, 10), (5, 50)) == [10, 14]


def test_a_batch_that_is_longer_than_the_config_says_is_sampled_as_long() -> None:
    """Rotary positions have no end, and a data collator of one's own may know that."""
    student = build_student(build_teacher(max_position_embeddings=20))
    student.generation_config.eos_token_id = None
    assert sampled_lengths(student, (30, 10), (5, 8)) == [10, 8]


def test_a_batch_without_padding_needs_no_mask() -> None:
    student = build_student(build_teacher()).eval()
    inputs, labels = batch([utterance(4, 6), utterance(4, 6)])
    found = []
    for given in (inputs, {name: value for name, value in inputs.items() if name != "attention_mask"}):
        torch.manual_seed(0)
        found.append(sample_student(student, given, labels)[0]["input_ids"])
    assert torch.equal(*found)
    del inputs["conditioning"]
    with pytest.raises(ValueError, match="go on from batch"):
        sample_student(student, inputs, labels)
