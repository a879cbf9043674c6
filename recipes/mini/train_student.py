"""Train the student: the teacher's weights, taught by the teacher to speak under a window of ``WINDOW`` codes.

Cross-entropy on the codes plus the skew KL divergence to the teacher on the same rows, two of five of them streams
whose text expires (:mod:`recipes.mini.rows`), while the window closes (:class:`wandlib.WindowCurriculum`): the
paper's recipe, run by :class:`wandlib.WandTrainer`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2ForCausalLM

import wandlib
from recipes.mini import rows
from recipes.mini.digits import folded
from recipes.mini.loop import computes_half
from recipes.mini.rows import MAX_GAP, PASSES, PINNED, Row, Speech
from recipes.mini.spoken import read
from recipes.mini.train_teacher import build_model
from wandlib.distillation.checkpoints import last_checkpoint

WINDOW = 16
"""Codes, .64 s: where the teacher's own weights have about twice its errors (README), which training is to mend."""
BLOCKS = 2
"""Texts that stay visible: the one being spoken and the one before it."""
UNBOUNDED = 4096
"""A window that hides nothing of a row or of a sentence, and blocks that never expire."""
BATCH = 16
"""Rows of each process in a step; the shipped student has two processes."""


@dataclass(frozen=True)
class Variant:
    """How a student is trained; the defaults are those of the shipped one, the ablation changes one at a time."""

    window: int = WINDOW
    blocks: int = BLOCKS
    max_gap: int = MAX_GAP
    ce_weight: float = 0.1
    """The library has 1, the paper does not say.

    But the speech itself is not guided by its text; the teacher is, and so shall the student be.
    """
    kl_weight: float = 1.0
    divergence: str = "skew"
    hidden_weight: float = 0.0
    schedule: str = "cosine"
    window_start: int = 64
    hard_fraction: float = 0.4
    """More than the library's 10 %: in so short a run the learning rate is spent before the last tenth."""
    lora: bool = False
    full: bool = False
    """Train on under full attention with cross-entropy alone: what the same steps do without a window."""
    share: float = 1.0
    """Of the speech; less is read as often as the steps need."""
    steps: int = 320
    learning_rate: float = 5e-4
    seed: int = 0


def training_rows(speech: Speech, variant: Variant, world: int) -> tuple[list[Row], int]:
    """Return the rows in the order of training, and the steps: of all of the speech no more than :data:`PASSES` passes.

    They are other rows than those of the teacher's passes, of which it knows too much; the guidance has read a third
    of them.
    """
    wanted, found, number = variant.steps * BATCH * world, list[Row](), 0
    while len(found) < wanted and (number < PASSES or variant.share < 1):
        found += speech.rows(1000 * variant.seed + PASSES + number)
        number += 1
    steps = min(variant.steps, max(1, len(found) // (BATCH * world)))
    return rows.in_batches(found, BATCH * world, variant.seed), steps


def utterances_read(corpus: Path, variant: Variant) -> int:
    """Count the utterances that one process reads in a variant's steps, each once."""
    speech, _ = read_speech(corpus, variant.share)
    training, steps = training_rows(speech, variant, 1)
    return len({number for row in training[: steps * BATCH] for number in row["utterances"]})


def read_speech(corpus: Path, share: float = 1.0) -> tuple[Speech, Speech]:
    """(training, held out): a share is the start of the corpus, which is balanced over speakers and sources."""
    training, held_out = read(corpus)
    return Speech(training[: max(1, round(share * len(training)))]), Speech(held_out)


def load_teacher(folder: Path, guided: bool = True) -> Qwen2ForCausalLM:
    """Load the averaged weights of the guided teacher; without one, or if not asked for it, of the plain one."""
    path = folder / "guidance.pt"
    if not guided or not path.exists():
        path = folder / "teacher.pt"
    return _filled(folder, folded(torch.load(path, weights_only=True)["average"]))


def _filled(folder: Path, weights: dict[str, Tensor]) -> Qwen2ForCausalLM:
    model = build_model(folder)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:
        raise ValueError(f"the weights do not fit the model: {missing} missing, {unexpected} unexpected")
    model.tie_weights()
    return model.eval()


def student_of(folder: Path, variant: Variant) -> Any:
    """Apply the window to the teacher's weights, with an adapter for LoRA where asked for."""
    student: Any = wandlib.convert(load_teacher(folder), **window_of(variant))
    if variant.lora:
        from peft import LoraConfig, get_peft_model

        matrices = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
        student = get_peft_model(student, LoraConfig(r=16, lora_alpha=32, target_modules=matrices))
    return student


def window_of(variant: Variant) -> dict[str, Any]:
    """Return what :func:`wandlib.convert` takes."""
    if variant.full:
        return {"window": UNBOUNDED, "blocks": UNBOUNDED, "pinned": PINNED}
    return {"window": variant.window, "blocks": variant.blocks, "pinned": PINNED}


def train(folder: Path, corpus: Path, variant: Variant, name: str) -> Qwen2ForCausalLM:
    """Train one variant under ``folder/name``, go on where it stands, or read it where it is finished.

    As many processes as torchrun starts share the work. Returns a model without a window.
    """
    output = folder / name
    done = output / "model.safetensors"
    if not done.exists():
        world = int(os.environ.get("WORLD_SIZE", "1"))
        speech, held_out = read_speech(corpus, variant.share)
        training, steps = training_rows(speech, variant, world)
        torch.manual_seed(variant.seed)
        student = student_of(folder, variant)
        trainer = wandlib.WandTrainer(
            model=student,
            teacher=None if variant.lora else load_teacher(folder),
            args=arguments(replace(variant, steps=steps), output),
            train_dataset=training,
            eval_dataset=held_out.rows(0),
            data_collator=rows.collator(variant.max_gap, seed=variant.seed),
        )
        trainer.train(resume_from_checkpoint=last_checkpoint(str(output)))
        if trainer.is_world_process_zero():
            trainer.state.save_to_json(str(output / "log.json"))
            plain = wandlib.restore(student.merge_and_unload() if variant.lora else student)
            weights = {key: value.detach().contiguous() for key, value in plain.named_parameters()}
            save_file(weights, output / "partial.safetensors")
            (output / "partial.safetensors").replace(done)
        trainer.accelerator.wait_for_everyone()
    return load_student(folder, name)


def load_student(folder: Path, name: str = "student") -> Qwen2ForCausalLM:
    """Load what :func:`train` wrote under ``folder/name``, without a window."""
    return _filled(folder, load_file(folder / name / "model.safetensors"))


def arguments(variant: Variant, output: Path) -> wandlib.WandTrainingArguments:
    """Return the trainer's settings of a variant."""
    window = UNBOUNDED if variant.full else variant.window
    return wandlib.WandTrainingArguments(
        str(output),
        use_cpu=True,
        bf16=computes_half(),
        max_steps=variant.steps,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        train_sampling_strategy="sequential",
        learning_rate=variant.learning_rate,
        max_grad_norm=1.0,
        window=window,
        window_start=max(variant.window_start, window),
        schedule="direct" if variant.full else variant.schedule,
        hard_fraction=variant.hard_fraction,
        ce_weight=variant.ce_weight,
        kl_weight=0.0 if variant.full else variant.kl_weight,
        divergence=variant.divergence,
        hidden_weight=variant.hidden_weight,
        logging_steps=10,
        eval_strategy="steps",
        eval_steps=50,
        save_steps=50,
        save_total_limit=1,
        seed=variant.seed,
        data_seed=variant.seed,
        report_to="none",
    )


def run(folder: Path, corpus: Path, speed: float = 1.0) -> Qwen2ForCausalLM:
    """Train the student that is shipped."""
    variant = Variant()
    return train(folder, corpus, replace(variant, steps=max(10, round(variant.steps / speed))), "student")
