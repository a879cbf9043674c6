"""``wandlib train`` as a user types it, on a tiny random Qwen2."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import VOCABULARY
from tiny_training import build_teacher, utterances
from transformers import TrainerCallback
from typer.testing import CliRunner

import wandlib
from wandlib.attention.conversion import hook_of
from wandlib.cli import app as cli
from wandlib.cli.train import train
from wandlib.cli.training_run import Source
from wandlib.distillation.arguments import WandTrainingArguments
from wandlib.distillation.checkpoints import last_checkpoint
from wandlib.distillation.trainer import WandTrainer

Run = Callable[..., Any]


def write(path: str, count: int, seed: int = 0) -> None:
    lines = [sample | {"input_ids": sample["input_ids"].tolist()} for sample in utterances(count, seed=seed)]
    lines[0]["conditioning"] = [n < lines[0]["conditioning"] for n in range(len(lines[0]["input_ids"]))]
    Path(path).write_text("\n\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """In a folder with a model and 32 utterances."""
    monkeypatch.chdir(tmp_path)
    build_teacher().save_pretrained("model")
    write("data.jsonl", 32)

    def invoke(*arguments: str, data: str = "data.jsonl", model: str = "model") -> Any:
        usual = ["train", data, "--model", model, "--output", "out", "--cpu", "--window", "4", "--window-start", "8"]
        return CliRunner().invoke(cli.app, [*usual, *arguments])

    return invoke


def said(result: Any) -> str:
    return " ".join(result.output.split())


def weights(folder: str) -> dict[str, torch.Tensor]:
    return wandlib.load(folder).state_dict()


def test_defaults_are_those_of_the_trainer() -> None:
    """Which are the paper's; a batch and a seed as transformers has them."""
    other = {"batch_size": "per_device_train_batch_size", "accumulate": "gradient_accumulation_steps"}
    other |= {"epochs": "num_train_epochs", "warmup": "warmup_steps", "log_steps": "logging_steps", "cpu": "use_cpu"}
    known = {field.name: field.default for field in dataclasses.fields(WandTrainingArguments)}
    options = {name: parameter.default for name, parameter in inspect.signature(train).parameters.items()}
    shared = {name: known[other.get(name, name)] for name in options if other.get(name, name) in known}
    assert len(shared) >= 17
    assert shared.pop("bf16") is False
    assert options["bf16"] is None  # off, but for a system on a GPU that has it
    assert {name: options[name] for name in shared} == shared
    assert Source("a model", None, None).window == inspect.signature(wandlib.convert).parameters["window"].default


def test_a_run_ends_with_a_student_that_loads(run: Run) -> None:
    write("held_out.jsonl", 8, seed=1)
    Path("train.toml").write_text('[train]\nsteps = 6\n"learning-rate" = 1e-2\n"log-steps" = 2\n', encoding="utf-8")
    result = run("--config", "train.toml", "--validation", "held_out.jsonl", "--save-steps", "3")
    assert result.exit_code == 0, result.output
    assert "wandlib.load('out') brings it back" in said(result)
    table = dict(line.strip().rsplit(maxsplit=1) for line in result.stdout.splitlines() if "  " in line.strip())
    assert (table["window, keys"], table["steps"]) == ("4", "6")
    assert 0 < float(table["validation kl"]) < math.inf
    student = wandlib.load("out")
    assert (hook_of(student).window, hook_of(student).tau, student.config.use_cache) == (4, math.inf, True)
    assert any(not torch.equal(value, weights_before) for value, weights_before in zip(
        student.state_dict().values(), build_teacher().state_dict().values(), strict=True))  # fmt: skip
    assert list(Path("out").rglob("events.out.tfevents*"))
    state = json.loads(Path("out/checkpoint-6/trainer_state.json").read_text(encoding="utf-8"))
    assert [line["step"] for line in state["log_history"] if "eval_kl" in line] == [3, 6]
    again = run("--steps", "6")
    assert again.exit_code == 1
    assert "of an earlier run: go on with --resume" in said(again)


class CtrlC(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            signal.raise_signal(signal.SIGINT)


def press_ctrl_c(self: WandTrainer, *arguments: Any, train: Any = WandTrainer.train, **named: Any) -> Any:
    self.add_callback(CtrlC())
    return train(self, *arguments, **named)


def test_ctrl_c_leaves_what_resume_goes_on_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights in the end are those of a run that nobody stopped."""
    options = ("--steps", "5", "--learning-rate", "1e-2")
    assert run(*options).exit_code == 0
    Path("out").rename("whole")
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(WandTrainer, "train", press_ctrl_c)
        stopped = run(*options)
    assert stopped.exit_code == 130
    kept = Path("out/checkpoint-3")
    assert f"stopped after step 3 of 5; to go on from {kept}, add --resume" in said(stopped)
    assert signal.getsignal(signal.SIGINT) is before
    assert last_checkpoint("out") == kept
    assert not Path("out/config.json").exists()
    resumed = run(*options, "--resume")
    assert resumed.exit_code == 0, resumed.output
    expected = weights("whole")
    assert all(torch.equal(value, expected[name]) for name, value in weights("out").items())


def test_a_checkpoint_of_another_run_is_not_gone_on_from(run: Run) -> None:
    """Each is an error of one line before the first step, and the checkpoint is as it was."""
    build_teacher(hidden_size=48).save_pretrained("wider")
    assert run("--steps", "3", "--lora", "2").exit_code == 0
    other = "out/checkpoint-3 is of another model, or of other adapters"
    for arguments in (("--lora", "4"), ()):
        refused = run("--steps", "4", "--resume", *arguments)
        assert refused.exit_code == 1, refused.output
        assert other in said(refused)
    Path("out").rename("adapted")
    assert run("--steps", "3").exit_code == 0
    for arguments in (("--lora", "2"), ("--model", "wider")):
        refused = run("--steps", "4", "--resume", *arguments)
        assert refused.exit_code == 1, refused.output
        assert other in said(refused)
    for steps in ("2", "3"):
        refused = run("--steps", steps, "--resume")
        assert refused.exit_code == 1, refused.output
        assert f"nothing is left to train: 3 of {steps} steps are done" in said(refused)
    resumed = run("--steps", "4", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert last_checkpoint("out") == Path("out/checkpoint-4")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [((), {"ce", "kl", "agreement"}), (("--on-policy", "1"), {"on-policy ce", "on-policy kl", "on-policy agreement"})],
)
def test_losses_are_told_after_a_run_shorter_than_the_log(
    run: Run, arguments: tuple[str, ...], names: set[str]
) -> None:
    result = run("--steps", "3", *arguments)
    assert result.exit_code == 0, result.output
    told = dict(line.strip().rsplit(maxsplit=1) for line in result.stdout.splitlines() if "  " in line.strip())
    assert told.keys() == {"window, keys", "steps", *names}
    assert all(0 <= float(told[name]) < math.inf for name in names)


def test_adapters_are_merged_in_the_end(run: Run) -> None:
    """A plain model comes out, in which only the matrices that had adapters have changed."""
    result = run("--lora", "2", "--steps", "3", "--learning-rate", "1e-2")
    assert result.exit_code == 0, result.output
    student, before = wandlib.load("out"), build_teacher().state_dict()
    assert (hook_of(student).window, student.config.use_cache) == (4, True)
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith("proj.weight")}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no utterances in 'wrong.jsonl': write one a line, like {"),
        ('{"input_ids": [1, 2', "line 2 of 'wrong.jsonl': no JSON ("),
        ("[" * 100_000, "line 2 of 'wrong.jsonl': no JSON ("),
        ('{"input_ids": [1, 2], "conditioning": 99999999999999999999999}', "has no generated token"),
        ("[1, 2]", "line 2 of 'wrong.jsonl': it is a list, not an object"),
        ('{"input_ids": [1, 2]}', "line 2 of 'wrong.jsonl': it needs input_ids, and labels or conditioning"),
        ('{"input_ids": [], "conditioning": 0}', "it is empty"),
        ('{"input_ids": 7, "conditioning": 0}', "input_ids must be a list of tokens, got 7"),
        ('{"input_ids": [1, 2, 3], "conditioning": 3}', "line 2 of 'wrong.jsonl': it has no generated token"),
        ('{"input_ids": [1, 2.5], "conditioning": 1}', "2.5 in input_ids is no token of this model"),
        ('{"input_ids": [1, -100], "conditioning": 1}', "-100 in input_ids is no token of this model"),
        (f'{{"input_ids": [1, {VOCABULARY}], "conditioning": 1}}', f"they go from 0 to {VOCABULARY - 1}"),
        ('{"input_ids": [1, 2], "labels": [-100, -7]}', "-7 in labels is no token"),
        ('{"input_ids": [1, 2], "conditioning": true}', "conditioning must be a number of tokens, or true or false"),
        ('{"input_ids": [1, 2], "conditioning": [true]}', "must be equally long"),
        ('{"input_ids": [1, 2], "conditioning": 1, "position_ids": "abc"}', "whole numbers from 0, got 'abc'"),
        ('{"input_ids": [1, 2], "conditioning": 1, "position_ids": [0, -1]}', "whole numbers from 0, got [0, -1]"),
        ('{"input_ids": [1, 2], "conditioning": 1, "position_ids": {"file": "t.safetensors"}}', "whole numbers from 0"),
        ('{"input_ids": [1, 2], "conditioning": 1, "voice": {"file": "no"}}', "voice is in 'no', which is not in '.'"),
        (
            '{"input_ids": [1, 2], "conditioning": 1, "voice": {"file": "t.safetensors", "tensor": "0.voice"}}',
            "line 2 of 'wrong.jsonl': voice is the tensor '0.voice', which is not in 't.safetensors': prepare it again",
        ),
        (
            '{"input_ids": [1, 2], "conditioning": 1, "voice": {"file": "data.jsonl", "tensor": "0.voice"}}',
            "line 2 of 'wrong.jsonl': voice is in 'data.jsonl', which cannot be read",
        ),
        (
            '{"input_ids": [1, 2], "conditioning": 1}\n{"input_ids": [1, 2], "conditioning": 1, "voice": '
            '{"file": "t.safetensors", "tensor": "1.voice"}}',
            "line 3 of 'wrong.jsonl': it has attention_mask, conditioning, input_ids, labels, voice, and the first",
        ),
        (json.dumps({"input_ids": [1] * 5000, "conditioning": 1}), "it has 5000 tokens"),
    ],
)
def test_a_wrong_line_is_named(run: Run, line: str, words: str) -> None:
    save_file({"1.voice": torch.zeros(3)}, "t.safetensors")
    Path("wrong.jsonl").write_text(f"\n{line}\n", encoding="utf-8")
    result = run(data="wrong.jsonl")
    assert result.exit_code == 1, result.output
    assert words in said(result)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--validation", "missing.jsonl"), "missing.jsonl"),
        (("--resume",), "out holds no complete checkpoint: start without resuming"),
        (("--output", "model"), "'model' holds a model, which would be written over"),
        (("--output", "data.jsonl"), "'data.jsonl' is a file: name a folder"),
        (("--lora", "4", "--teacher", "model"), "leave out --lora or --teacher"),
        (("--kl-weight", "0", "--teacher", "model"), "leave out --kl-weight or --teacher"),
        (("--epochs", "0"), "--epochs is a finite number above 0, not 0"),
        (("--epochs", "nan"), "--epochs is a finite number above 0, not nan"),
        (("--learning-rate", "-1"), "--learning-rate is a finite number above 0, not -1"),
        (("--kl-weight", "inf"), "--kl-weight is a finite number from 0, not inf"),
        (("--warmup", "inf"), "--warmup is a finite number from 0, not inf"),
        (("--window-start", "2"), "window_start"),
        (("--on-policy", "2"), "on_policy is a share of the steps"),
        (("--teacher", "other"), "vocabulary"),
        (("--model", "nowhere"), "cannot load 'nowhere'"),
    ],
)
def test_errors_are_one_line(run: Run, arguments: tuple[str, ...], words: str) -> None:
    build_teacher(vocab_size=11).save_pretrained("other")
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert words in said(result)
    assert "Traceback" not in result.output


def test_weights_in_a_pickle_are_refused(run: Run) -> None:
    Path("model/model.safetensors").unlink()
    torch.save(build_teacher().state_dict(), "model/pytorch_model.bin")
    result = run()
    assert result.exit_code == 1
    assert "safetensors" in said(result)


def test_too_little_memory_is_explained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(WandTrainer, "compute_loss", full)
    result = run()
    assert result.exit_code == 1
    assert "CUDA out of memory: lower --batch-size" in said(result)


def test_help(run: Run) -> None:
    result = CliRunner().invoke(cli.app, ["train", "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert "--window-start" in result.output
