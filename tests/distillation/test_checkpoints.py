"""What may go wrong in a long run: it is killed, its loss explodes, the disk is full. No checkpoint goes wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from tiny_training import build_trainer, losses, utterances
from transformers import TrainerCallback

from wandlib.attention.conversion import hook_of, load
from wandlib.distillation import checkpoints
from wandlib.distillation.checkpoints import last_checkpoint
from wandlib.distillation.trainer import WandTrainer

EVERY_OTHER = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2}


class KilledError(Exception):
    """Stands for the signal."""


class Kill(TrainerCallback):
    """End the run in the middle of a step."""

    def __init__(self, step: int, error: BaseException | None = None) -> None:
        self.step, self.error = step, error or KilledError()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise self.error


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "on_policy": 0.5}],
    ids=["plain", "accumulation, on policy"],
)
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(tmp_path: Path, options: dict[str, Any]) -> None:
    options = EVERY_OTHER | {"learning_rate": 1e-2} | options
    whole = build_trainer(tmp_path / "whole", **options)
    whole.train()
    killed = build_trainer(tmp_path / "killed", **options)
    killed.add_callback(Kill(step=5))
    with pytest.raises(KilledError):
        killed.train()
    torch.manual_seed(99)  # a new process stands at another place in its random numbers
    resumed = build_trainer(tmp_path / "killed", **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.log_history[:4] == whole.state.log_history[:4]
    assert losses(resumed) == losses(whole)
    for name in ("window", "tau", "grad_norm", "learning_rate"):
        assert [line.get(name) for line in resumed.state.log_history[:-1]] == [
            line.get(name) for line in whole.state.log_history[:-1]
        ]
    for name, value in whole.student.state_dict().items():
        assert torch.equal(resumed.student.state_dict()[name], value)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_a_run_goes_on_with_the_learning_rate_that_it_is_given(tmp_path: Path, schedule: str) -> None:
    """As the errors of a run that diverged advise; the checkpoint holds the rates of before."""
    options = EVERY_OTHER | {"lr_scheduler_type": schedule, "logging_steps": 1}
    rates = {}
    for folder, rate in (("killed", 1e-2), ("lower", 1e-4)):
        trainer = build_trainer(tmp_path / folder, **options, learning_rate=rate)
        trainer.train()
        rates[folder] = [line["learning_rate"] for line in trainer.state.log_history if "learning_rate" in line]
    resumed = build_trainer(tmp_path / "killed", **options, learning_rate=1e-4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / "checkpoint-4"))
    logged = [line["learning_rate"] for line in resumed.state.log_history if "learning_rate" in line]
    assert logged == pytest.approx(rates["killed"][:4] + rates["lower"][4:], rel=1e-9)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), torch.OutOfMemoryError(), ValueError("a bad utterance")], ids=repr
)
def test_an_interrupted_run_leaves_the_window_of_inference(tmp_path: Path, error: BaseException) -> None:
    """The curriculum's momentary one would be generated with, saved, and be the next trainer's final one."""
    trainer = build_trainer(tmp_path, **EVERY_OTHER)
    seen = []
    trainer.student.register_forward_pre_hook(lambda model, _: seen.append((hook_of(model).window, hook_of(model).tau)))
    trainer.add_callback(Kill(step=3, error=error))
    with pytest.raises(type(error)):
        trainer.train()
    assert seen[-1][0] > 4
    assert math.isfinite(seen[-1][1])
    assert (hook_of(trainer.student).window, hook_of(trainer.student).tau) == (4, math.inf)
    trainer.student.save_pretrained(tmp_path / "student")
    assert hook_of(load(tmp_path / "student")).window == 4
    again = WandTrainer(model=trainer.student, teacher=trainer.teacher, args=trainer.args)
    assert again.window == 4
    trainer.remove_callback(Kill)
    trainer.train(resume_from_checkpoint=True)
    whole = trainer.args.curriculum(4)
    course = [replace(whole, total_steps=8).at(step)[:2] for step in range(8)]
    assert [(line["window"], line["tau"]) for line in trainer.state.log_history if "loss" in line] == course


def test_training_leaves_the_cache_as_it_was_asked_for(tmp_path: Path) -> None:
    """Trainer switches it off in the config, where a second trainer on the same student would find it off."""
    trainer = build_trainer(tmp_path, max_steps=1)
    trainer.train()
    again = WandTrainer(model=trainer.student, teacher=trainer.teacher, args=trainer.args)
    again.save_model(str(tmp_path / "student"))
    assert load(tmp_path / "student").config.use_cache


def test_every_checkpoint_has_the_window_of_inference(tmp_path: Path) -> None:
    build_trainer(tmp_path, **EVERY_OTHER, tau_end=2.0).train()
    for step in (2, 8):
        loaded = load(tmp_path / f"checkpoint-{step}")
        assert (hook_of(loaded).window, hook_of(loaded).tau) == (4, math.inf)


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, **EVERY_OTHER)
    trainer.train()
    last, before = tmp_path / "checkpoint-8", tmp_path / "checkpoint-6"
    assert last_checkpoint(tmp_path) == last
    text = (last / "trainer_state.json").read_text(encoding="utf-8")
    (last / "trainer_state.json").write_text(text[: len(text) // 2], encoding="utf-8")
    assert last_checkpoint(tmp_path) == before
    (last / "trainer_state.json").unlink()
    assert last_checkpoint(tmp_path) == before
    resumed = build_trainer(tmp_path, **EVERY_OTHER)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == losses(trainer)
    assert last_checkpoint(tmp_path) == last
    (last / "trainer_state.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-8 is no complete checkpoint .* is .*checkpoint-6"):
        resumed.train(resume_from_checkpoint=str(last))
    with pytest.raises(ValueError, match="holds no complete checkpoint"):
        build_trainer(tmp_path / "empty").train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("file", "full"),
    [  # as each of their writers puts it
        ("model", SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")),
        ("optimizer", RuntimeError("PytorchStreamWriter failed writing file data/7: file write failed")),
        ("trainer_state", OSError(28, "No space left on device")),
    ],
)
def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, full: Exception
) -> None:
    trainer = build_trainer(tmp_path, **EVERY_OTHER)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise full

    class Fill(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                owner, name = {
                    "model": (trainer.student, "save_pretrained"),
                    "optimizer": (trainer, "_save_optimizer_and_scheduler"),
                    "trainer_state": (trainer.state, "save_to_json"),
                }[file]
                monkeypatch.setattr(owner, name, fail)

    trainer.add_callback(Fill())
    with pytest.raises(OSError, match=r"checkpoint of step 4 .* MB are free.*checkpoint-2\. Free some space"):
        trainer.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2"]
    resumed = build_trainer(tmp_path, **EVERY_OTHER)
    resumed.train(resume_from_checkpoint=True)
    assert len(losses(resumed)) == 8


def test_a_checkpoint_that_is_written_again_does_not_count_until_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    (folder / "trainer_state.json").write_text("{}", encoding="utf-8")
    with checkpoints.atomic_checkpoint(tmp_path, 4, writer=True):
        assert last_checkpoint(tmp_path) is None
    with pytest.raises(OSError, match="could not write"), checkpoints.atomic_checkpoint(tmp_path, 4, writer=True):
        raise OSError("full")
    assert not folder.exists()


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, **EVERY_OTHER)

    class Break(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                trainer.student.get_input_embeddings().weight.data.fill_(math.nan)

    trainer.add_callback(Break())
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 3 \(ce nan.*checkpoint-2.*learning_rate"):
        trainer.train()
    assert (hook_of(trainer.student).window, hook_of(trainer.student).tau) == (4, math.inf)
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 2


def test_weights_that_are_not_numbers_are_not_saved(tmp_path: Path) -> None:
    """A gradient may be infinite where the loss is not; the weights are then NaN before the next loss shows it."""
    trainer = build_trainer(tmp_path, **EVERY_OTHER)

    class Break(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                next(trainer.student.parameters()).grad.fill_(math.inf)

    trainer.add_callback(Break())
    with pytest.raises(FloatingPointError, match=r"not finite after step 4, which is therefore not saved"):
        trainer.train()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert not (tmp_path / "checkpoint-4").exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"input_ids": [1, 2, 3], "conditioning": 3}, "no generated token: all its 3 tokens"),
        ({"input_ids": [1] * 300, "conditioning": 3}, "has 300 tokens and max_length is 256"),
        ({"input_ids": [], "conditioning": 0}, "is empty"),
    ],
)
def test_a_bad_utterance_in_the_middle_of_a_run(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    """The model's own number of positions is the limit; the checkpoint from before stands."""
    data = [*utterances(31), bad]
    trainer: WandTrainer = build_trainer(tmp_path, data=data, max_steps=8, save_strategy="steps", save_steps=1, seed=3)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    found = last_checkpoint(tmp_path)
    assert (0 if found is None else int(found.name.rpartition("-")[2])) == trainer.state.global_step
