"""Memory of training, computed without any, against what a run of the trainer holds at its peak."""

from __future__ import annotations

import copy
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config, Qwen2ForCausalLM
from typer.testing import CliRunner

import wandlib
from wandlib.cli import app as cli
from wandlib.profiling.training_memory import training_memory

BOUND = 0.2
BATCH, LENGTH = 4, 96


class Held(TorchDispatchMode):
    """Bytes of all tensors that were made and are not gone, and the most at once."""

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        weights = {weight.untyped_storage() for model in models for weight in model.parameters()}
        self.now = self.peak = sum(storage.nbytes() for storage in weights)
        self.known = weakref.WeakSet[Any](weights)  # or a view of a weight would be one more

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def free(self, count: int) -> None:
        self.now -= count


SHAPES: dict[str, dict[str, Any]] = {
    "many activations": {"vocab_size": 600, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4},
    "many logits": {"vocab_size": 3000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3},
}


def build(shape: str = "many activations") -> nn.Module:
    return Qwen2ForCausalLM(Qwen2Config(num_attention_heads=4, num_key_value_heads=2, **SHAPES[shape]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("bf16", "accumulate"), [(False, 1), (True, 1), (False, 3)])
def test_estimate_is_within_its_bound_of_a_run(bf16: bool, accumulate: int, shape: str, tmp_path: Path) -> None:
    teacher: Any = build(shape)
    student = wandlib.convert(copy.deepcopy(teacher), window=8)
    teacher.requires_grad_(False)
    ids = torch.randint(600, (2 * BATCH * accumulate, LENGTH))
    options = {"max_steps": 2, "per_device_train_batch_size": BATCH, "gradient_accumulation_steps": accumulate}
    arguments = wandlib.WandTrainingArguments(str(tmp_path), use_cpu=True, bf16=bf16, report_to="none", **options)
    rows = [{"input_ids": row, "conditioning": 20} for row in ids]
    trainer = wandlib.WandTrainer(model=student, teacher=teacher, args=arguments, train_dataset=rows)
    with Held(student, teacher) as held:
        trainer.train()
    sizes = {"batch": BATCH, "length": LENGTH, "bf16": bf16, "accumulate": accumulate}
    computed = training_memory(partial(build, shape), **sizes)
    assert computed.peak == pytest.approx(held.peak, rel=BOUND)
    assert (computed.activations > computed.logits) == (shape == "many activations")


def test_adapters_save_gradients_optimizer_and_teacher() -> None:
    from wandlib.cli.training_run import with_adapters

    whole = training_memory(build, batch=BATCH, length=LENGTH)
    lora = training_memory(build, batch=BATCH, length=LENGTH, adapt=lambda model: with_adapters(model, 4))
    assert lora.teacher == 0
    assert lora.gradients < whole.gradients / 10
    assert lora.optimizer == 2 * lora.gradients
    assert lora.weights == whole.weights + lora.gradients
    assert lora.activations == whole.activations


def test_accumulated_gradients_are_there_beside_activations() -> None:
    at_once, in_parts = (training_memory(build, batch=1, length=200, accumulate=count) for count in (1, 4))
    assert at_once.activations + at_once.logits > at_once.gradients > 0
    assert in_parts.peak == at_once.peak + at_once.gradients


def test_activations_grow_with_the_batch() -> None:
    one, four = (training_memory(build, batch=batch, length=LENGTH).activations for batch in (1, 4))
    assert four == pytest.approx(4 * one, rel=0.02)
    for batch, length in ((0, 1), (1, 2.5)):
        with pytest.raises(ValueError, match="whole number, at least 1; got"):
            training_memory(build, batch=batch, length=length)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, ["profile", *arguments], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_systems_in_one_table() -> None:
    """The paper's cache reductions and FLOPs (arXiv 2604.08558, table 1), from the language models themselves."""
    lines = run("--system", "all").splitlines()
    assert lines[0].split() == ["cosyvoice2", "sparktts", "indextts", "neutts", "llasa"]
    rows = {line[:24].strip(): line[24:].split() for line in lines}
    less = [float(cell) for cell in rows["less"] if cell != "%"]
    assert less[:3] == pytest.approx([49.9, 60.5, 66.2], abs=0.11)
    assert [float(cell) for cell in rows["attention, GFLOPs: full"]][2] == pytest.approx(6.18, rel=0.03)


def test_training_of_a_system_fits_20_gb() -> None:
    table = run("--train", "--system", "cosyvoice2", "--batch", "8", "--length", "512")
    [peak] = [float(line.split()[-2]) for line in table.splitlines() if "at most at once" in line]
    assert 10 < peak < 20


def test_what_cannot_be_computed() -> None:
    for arguments, words in (
        (["--train", "--system", "all"], "--train is for one system"),
        (["--system", "mini"], "no system named 'mini' can be trained"),
        (["--train", "./none"], "none"),
    ):
        result = CliRunner().invoke(cli.app, ["profile", *arguments])
        assert result.exit_code == 1, result.output
        assert words in " ".join(result.output.split())
