"""Training samples of Spark-TTS: what inference would see, and a loss under the window."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import wandlib
from wandlib.systems.base import InputError
from wandlib.systems.sparktts import tiny
from wandlib.systems.sparktts.prompt import clone_prompt
from wandlib.systems.sparktts.training import training_sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "spark") / "LLM"


def test_a_sample_goes_on_from_the_prompt(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sample = training_sample(tokenizer, "Hi.", [5, 6, 7], list(range(8)))
    prompt = tokenizer(clone_prompt("Hi.", list(range(8)))).input_ids
    assert sample["input_ids"][: len(prompt)].tolist() == prompt
    said = "<|start_semantic_token|><|bicodec_semantic_5|><|bicodec_semantic_6|><|bicodec_semantic_7|><|im_end|>"
    assert tokenizer.decode(sample["input_ids"][len(prompt) :]) == said
    assert sample["conditioning"].sum() == len(prompt)
    assert torch.equal(sample["labels"] == -100, sample["conditioning"])
    with pytest.raises(InputError, match="nothing to say"):
        training_sample(tokenizer, "...", [1], [1])


def test_a_batch_has_a_loss_under_the_window(folder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    batch = wandlib.WandCollator()(
        [training_sample(tokenizer, text, list(range(count)), list(range(8))) for text, count in (("Hi.", 9), ("A", 5))]
    )
    wandlib.convert(model, window=4).train()
    model(**batch).loss.backward()
    assert model.model.layers[0].self_attn.q_proj.weight.grad.abs().max() > 0
