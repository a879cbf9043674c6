"""Options of Trainer and TrainingArguments that change losses or metrics: obeyed with the right value, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from accelerate import ParallelismConfig
from peft import LoraConfig, get_peft_model
from tiny_training import arguments, build_student, build_teacher, build_trainer, losses, utterances
from torch import Tensor
from torch.nn import functional as F
from transformers.trainer_pt_utils import LabelSmoother

from wandlib.attention.conversion import set_window
from wandlib.distillation.collator import WandCollator
from wandlib.distillation.trainer import WandTrainer


def batch(count: int = 4) -> dict[str, Tensor]:
    return WandCollator()(utterances(count))


def unlabelled(count: int = 4) -> dict[str, Tensor]:
    return {name: value for name, value in batch(count).items() if name != "labels"}


def trainer_with(folder: Path, options: dict[str, Any] | None = None, **kwargs: Any) -> WandTrainer:
    """A trainer with options of Trainer, which ``build_trainer`` does not take."""
    teacher = build_teacher()
    return WandTrainer(
        model=build_student(teacher),
        teacher=teacher,
        args=arguments(folder, **(options or {})),
        train_dataset=utterances(16),
        eval_dataset=utterances(7, seed=1),
        **kwargs,
    )


# ------------------------------------------------------------------------------------------------------ label smoothing


def test_label_smoothing_is_transformers_own(tmp_path: Path) -> None:
    """Against LabelSmoother on the same logits, loss and gradients, with and without num_items_in_batch."""
    trainer = build_trainer(tmp_path, kl_weight=0.0, label_smoothing_factor=0.3)
    student, inputs = trainer.student.train(), batch()
    set_window(student, tau=2.0)
    for items in (None, 33):
        loss = trainer.compute_loss(student, inputs, num_items_in_batch=items)
        (gradient,) = torch.autograd.grad(loss, student.lm_head.weight)
        output = student(**{name: value for name, value in inputs.items() if name != "labels"})
        expected = LabelSmoother(0.3)(output, inputs["labels"], shift_labels=True, num_items_in_batch=items)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, student.lm_head.weight)[0])


def test_label_smoothing_leaves_the_divergence_alone(tmp_path: Path) -> None:
    plain, smooth = build_trainer(tmp_path), build_trainer(tmp_path, label_smoothing_factor=0.3)
    found = []
    for trainer in (plain, smooth):
        trainer.compute_loss(trainer.student.train(), batch())
        found.append(trainer.meter.means())
    assert found[0]["kl"] == found[1]["kl"]
    assert found[0]["ce"] != found[1]["ce"]


def test_evaluation_smooths_too(tmp_path: Path) -> None:
    """As in Trainer: eval_loss is the loss that is minimized."""
    trainer = build_trainer(tmp_path, kl_weight=0.0, label_smoothing_factor=0.3)
    inputs = batch(8)
    output = trainer.student.eval()(**{name: value for name, value in inputs.items() if name != "labels"})
    expected = LabelSmoother(0.3)(output, inputs["labels"], shift_labels=True)
    assert trainer.evaluate(utterances(8))["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_the_model_s_own_words_are_not_smoothed(tmp_path: Path) -> None:
    found = []
    for factor in (0.0, 0.3):
        torch.manual_seed(0)
        trainer = build_trainer(tmp_path, on_policy=1.0, label_smoothing_factor=factor)
        trainer.compute_loss(trainer.student.train(), batch())
        found.append(trainer.meter.means())
    assert found[0] == found[1]


# ---------------------------------------------------------------------------------------------------- compute_loss_func


def test_compute_loss_func_replaces_the_loss(tmp_path: Path) -> None:
    """It gets outputs with logits, labels and num_items_in_batch, as from Trainer; nothing is asked of the teacher."""
    given: list[tuple[Any, ...]] = []

    def mine(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        given.append((outputs.logits.detach(), labels, num_items_in_batch))
        return F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / 50

    trainer = trainer_with(tmp_path, compute_loss_func=mine)
    trainer.teach = None  # type: ignore[assignment,method-assign]
    student, inputs = trainer.student.train(), batch()
    loss, outputs = trainer.compute_loss(student, inputs, return_outputs=True, num_items_in_batch=torch.tensor(50))
    ((logits, labels, items),) = given
    assert torch.equal(logits, student(**unlabelled()).logits)
    assert torch.equal(outputs["logits"], logits)
    assert torch.equal(labels, inputs["labels"])
    assert int(items) == 50
    (gradient,) = torch.autograd.grad(loss, student.lm_head.weight)
    plain = build_trainer(tmp_path, kl_weight=0.0)
    plain.student.load_state_dict(student.state_dict())
    expected = plain.compute_loss(plain.student.train(), inputs, num_items_in_batch=50)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, plain.student.lm_head.weight)[0])


def test_a_run_with_compute_loss_func(tmp_path: Path) -> None:
    """Summed and divided by num_items_in_batch it trains like the trainer's own cross-entropy, in pieces too."""

    def mine(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        logits = outputs.logits[:, :-1].flatten(0, 1)
        return F.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / num_items_in_batch

    options = {"max_steps": 2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "kl_weight": 0.0}
    own, plain = trainer_with(tmp_path, options, compute_loss_func=mine), trainer_with(tmp_path, options)
    for trainer in (own, plain):
        trainer.train()
    assert losses(own) == pytest.approx(losses(plain), rel=1e-5)
    assert own.evaluate()["eval_loss"] > 0


def test_a_loss_of_one_s_own_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path, compute_loss_func=lambda outputs, labels, **_: outputs.logits.sum() * torch.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
        trainer.train()


# ------------------------------------------------------------------------------------------------------ compute_metrics


def accuracy(predictions: Any) -> dict[str, float]:
    logits, labels = predictions.predictions, predictions.label_ids
    counted = labels[:, 1:] != -100
    return {"accuracy": float((logits.argmax(-1)[:, :-1] == labels[:, 1:])[counted].mean())}


@pytest.mark.parametrize("capped", [False, True], ids=["head last", "capped after the head"])
def test_compute_metrics_gets_the_student_s_logits(tmp_path: Path, capped: bool) -> None:
    """Under the window of inference, aligned with the labels; the losses are what they are without."""
    from tiny_models import LANGUAGE_MODELS

    gemma3 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "gemma3")
    teacher = gemma3.build(final_logit_softcapping=2.0) if capped else build_teacher()
    options = {"per_device_eval_batch_size": 3}
    plain = build_trainer(tmp_path, teacher, **options)
    trainer = WandTrainer(
        model=build_student(teacher),
        teacher=teacher,
        args=arguments(tmp_path, **options),
        compute_metrics=accuracy,
        eval_dataset=utterances(7),
    )
    set_window(trainer.student, window=16, tau=0.5)
    metrics, without = trainer.evaluate(), plain.evaluate(utterances(7))
    for name in ("loss", "ce", "kl", "agreement"):
        assert metrics[f"eval_{name}"] == without[f"eval_{name}"]
    inputs = batch(7)
    set_window(trainer.student, window=4, tau=float("inf"))
    logits = trainer.student.eval()(**{name: value for name, value in inputs.items() if name != "labels"}).logits
    counted = inputs["labels"][:, 1:] != -100
    expected = (logits.argmax(-1)[:, :-1] == inputs["labels"][:, 1:])[counted].float().mean()
    assert metrics["eval_accuracy"] == pytest.approx(expected.item())
    predicted = trainer.predict(utterances(7), metric_key_prefix="held_out")
    assert predicted.metrics["held_out_accuracy"] == metrics["eval_accuracy"]
    assert predicted.predictions.shape == logits.shape


def test_without_compute_metrics_there_are_no_logits(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path)
    seen: list[Any] = []
    compute_loss = trainer.compute_loss

    def watched(*args: Any, **kwargs: Any) -> Any:
        found = compute_loss(*args, **kwargs)
        seen.append(found[1])
        return found

    trainer.compute_loss = watched  # type: ignore[method-assign]
    trainer.evaluate(utterances(8))
    assert seen == [{}]


def test_logits_are_preprocessed_and_metrics_get_what_they_ask_for(tmp_path: Path) -> None:
    found: dict[str, Any] = {}

    def metrics(predictions: Any) -> dict[str, float]:
        found.update(ids=predictions.predictions, inputs=predictions.inputs, losses=predictions.losses)
        return {"mine": 1.0}

    options = {"include_for_metrics": ["inputs", "loss"]}
    trainer = trainer_with(
        tmp_path,
        options,
        compute_metrics=metrics,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )
    assert trainer.evaluate()["eval_mine"] == 1.0
    inputs = WandCollator()(utterances(7, seed=1))
    assert np.array_equal(found["inputs"], inputs["input_ids"].numpy())
    assert found["ids"].shape == inputs["input_ids"].shape
    assert found["losses"].shape == (7,)


def test_metrics_batch_by_batch(tmp_path: Path) -> None:
    calls: list[tuple[int, bool]] = []

    def metrics(predictions: Any, compute_result: bool = False) -> dict[str, float]:
        calls.append((len(predictions.predictions), compute_result))
        return {"batches": float(len(calls))}

    options = {"batch_eval_metrics": True, "per_device_eval_batch_size": 3}
    assert trainer_with(tmp_path, options, compute_metrics=metrics).evaluate()["eval_batches"] == 3
    assert calls == [(3, False), (3, False), (1, True)]


# -------------------------------------------------------------------------------------------------------- other options


def test_neftune_disturbs_the_student_alone(tmp_path: Path) -> None:
    """Noise on the embeddings in training; the teacher, here the same weights, is in evaluation mode."""
    student = get_peft_model(build_student(build_teacher()), LoraConfig(r=4, target_modules=["q_proj"]))
    options = {"neftune_noise_alpha": 50.0, "max_steps": 1, "per_device_train_batch_size": 4}
    trainer = WandTrainer(model=student, args=arguments(tmp_path, **options), train_dataset=utterances(4))
    taught, seen = [], []
    teach, states = trainer.teach, trainer.teach(unlabelled())[0]
    trainer.teach = lambda given: taught.append(teach(unlabelled())[0]) or teach(given)  # type: ignore[func-returns-value,method-assign]
    layer = student.get_base_model().model.layers[0]
    layer.register_forward_pre_hook(lambda module, args: seen.append((module.training, args[0].std().item())))
    trainer.train()
    assert torch.equal(taught[0], states)
    noisy, quiet = ([std for training, std in seen if training is mode] for mode in (True, False))
    assert min(noisy) > 1.5 * max(quiet)


@pytest.mark.parametrize(
    "options",
    [
        {"train_sampling_strategy": "batch_rebalance"},
        {"auto_find_batch_size": True},
        {"include_num_input_tokens_seen": "non_padding"},
        {"bf16_full_eval": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_change_no_number(tmp_path: Path, options: dict[str, Any]) -> None:
    plain, changed = build_trainer(tmp_path, max_steps=3), build_trainer(tmp_path, max_steps=3, **options)
    for trainer in (plain, changed):
        trainer.train()
    assert losses(changed) == pytest.approx(losses(plain), rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_torch_compile_changes_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window changes with every step, and the hook on the head comes and goes."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # dynamo cannot trace its checks
    found = []
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        torch._dynamo.reset()
        trainer = build_trainer(tmp_path, max_steps=3, **options)
        trainer.train()
        found.append([*losses(trainer), trainer.evaluate(utterances(8))["eval_loss"]])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_the_curriculum_follows_a_batch_size_that_is_found(tmp_path: Path) -> None:
    """auto_find_batch_size starts again with smaller batches and more steps; window and meter start again, too."""
    trainer = build_trainer(tmp_path, auto_find_batch_size=True, per_device_train_batch_size=32)
    step = trainer.training_step

    def too_large(model: Any, inputs: dict[str, Any], *args: Any) -> Tensor:
        loss = step(model, inputs, *args)
        if len(inputs["labels"]) > 28:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss

    trainer.training_step = too_large  # type: ignore[method-assign]
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["tau"] for line in lines] == [pytest.approx(0.1), float("inf")]
    assert all(line["loss"] == pytest.approx(line["ce"] + line["kl"], rel=1e-4) for line in lines)


@pytest.mark.parametrize(
    ("options", "kwargs", "message"),
    [
        ({"remove_unused_columns": True}, {}, "removes conditioning"),
        ({"label_names": ["targets"]}, {}, r"label_names is \['targets'\], and the targets must be called labels"),
        ({"use_liger_kernel": True}, {}, "fuse the loss of the model itself"),
        ({"parallelism_config": ParallelismConfig(cp_size=2)}, {}, "WandTrainer only splits batches"),
        ({}, {"model_init": build_teacher}, "build a WandTrainer for each trial"),
        ({"prediction_loss_only": True}, {"compute_metrics": accuracy}, "compute_metrics needs them"),
        ({"label_smoothing_factor": 0.1, "ce_weight": 0.0}, {}, "ce_weight is 0"),
        ({"label_smoothing_factor": 0.1}, {"compute_loss_func": max}, "compute_loss_func replaces the cross-entropy"),
        ({"label_smoothing_factor": 1.0}, {}, r"from 0 to below 1; got 1\.0"),
        ({"on_policy": 0.5}, {"compute_loss_func": max}, "leave out compute_loss_func"),
    ],
)
def test_refuses(tmp_path: Path, options: dict[str, Any], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_with(tmp_path, options, **kwargs)


def test_refuses_adapters_that_are_not_saved(tmp_path: Path) -> None:
    teacher = build_teacher()
    student = get_peft_model(build_student(teacher), LoraConfig(r=4, target_modules=["q_proj"]), adapter_name="mine")
    with pytest.raises(ValueError, match="has the adapters mine, and only one is saved"):
        WandTrainer(model=student, args=arguments(tmp_path), train_dataset=utterances(4))
