"""Train the student: the teacher's weights, taught by the teacher to speak under a window of ``WINDOW`` codes.

Cross-entropy on the codes plus the skew KL divergence to the teacher, while the window closes
(:class:`wandlib.WindowCurriculum`): the paper's recipe, run by :class:`wandlib.WandTrainer`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Qwen2ForCausalLM

import wandlib
from recipes.mini import align, analysis
from recipes.mini.train_teacher import HELD_OUT_UTTERANCES, REFERENCE, build_model
from wandlib.distillation.checkpoints import last_checkpoint
from wandlib.systems.mini.prompt import END, FIRST_CODE, prompt

WINDOW = 16
"""Codes, .64 s: there the teacher's own weights fall apart (RESULTS.md), so that training has something to mend."""
LONG, LONG_TIMES = 150, 2
"""Training takes utterances of this many codes, 6 s, twice as often: a window gets lost in long texts."""
UNBOUNDED = 4096
"""A window that hides nothing."""
BATCH = 16
"""Utterances of each process in a step; the shipped student has two processes."""


@dataclass(frozen=True)
class Variant:
    """How a student is trained; the defaults are those of the shipped one, the ablation changes one at a time."""

    window: int = WINDOW
    ce_weight: float = 1.0
    kl_weight: float = 1.0
    divergence: str = "skew"
    hidden_weight: float = 0.0
    on_policy: float = 0.0
    schedule: str = "cosine"
    window_start: int = 64
    hard_fraction: float = 0.4
    """More than the paper's 10 %: in so short a run the learning rate is spent before the last tenth."""
    lora: bool = False
    full: bool = False
    """Train on under full attention with cross-entropy alone: what the same steps do without a window."""
    steps: int = 320
    learning_rate: float = 5e-4
    seed: int = 0


class Utterances(Dataset):  # type: ignore[type-arg]  # torch's Dataset has no type for a dict of tensors
    """Samples [reference | text | codes]; the reference is always the same other utterance of the speaker.

    Utterances of ``LONG`` codes or more are there ``long_times`` times, each with another reference.
    """

    def __init__(
        self, symbols: list[list[int]], codes: list[np.ndarray], speakers: list[str], long_times: int = 1
    ) -> None:
        self.by_speaker: dict[str, list[int]] = defaultdict(list)
        for number, (said, speaker) in enumerate(zip(codes, speakers, strict=True)):
            if len(said) >= REFERENCE:
                self.by_speaker[speaker].append(number)
        self.symbols, self.codes, self.speakers = symbols, codes, speakers
        self.numbers = [
            number
            for number, speaker in enumerate(speakers)
            if speaker in self.by_speaker
            for _ in range(long_times if len(codes[number]) >= LONG else 1)
        ]
        if not self.numbers:
            raise ValueError(f"no utterance of {REFERENCE} codes or more: there is nothing to take a reference from")

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number, rng = self.numbers[index], random.Random(index)
        other = self.codes[rng.choice(self.by_speaker[self.speakers[number]])]
        start = rng.randrange(len(other) - REFERENCE + 1)
        head = prompt(other[start : start + REFERENCE].tolist(), self.symbols[number])
        said = [*(FIRST_CODE + code for code in self.codes[number].tolist()), END]
        return {
            "input_ids": torch.tensor(head + said),
            "labels": torch.tensor([-100] * len(head) + said),
            "conditioning": torch.tensor([True] * len(head) + [False] * len(said)),
        }


def read_utterances(corpus: Path) -> tuple[Utterances, Utterances]:
    """(training, held out): every utterance with its codes and symbols."""
    symbols, stored = align.phones(corpus), np.load(corpus / "codes.npz")
    codes = np.split(stored["codes"].astype(np.int64), stored["ends"][:-1])
    speakers = [item.utterance.speaker for item in analysis.read(corpus)]
    split = HELD_OUT_UTTERANCES
    return (
        Utterances(symbols[split:], codes[split:], speakers[split:], LONG_TIMES),
        Utterances(symbols[:split], codes[:split], speakers[:split]),
    )


def load_teacher(folder: Path) -> Qwen2ForCausalLM:
    """Load the averaged weights of ``folder/teacher.pt``."""
    return _filled(torch.load(folder / "teacher.pt", weights_only=True)["average"])


def _filled(weights: dict[str, Tensor]) -> Qwen2ForCausalLM:
    model = build_model()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:
        raise ValueError(f"the weights do not fit the model: {missing} missing, {unexpected} unexpected")
    model.tie_weights()
    return model.eval()


def student_of(folder: Path, lora: bool = False, window: int = WINDOW) -> Any:
    """Apply the window to the teacher's weights, with an adapter for LoRA where asked for."""
    student: Any = wandlib.convert(load_teacher(folder), window=window)
    if lora:
        from peft import LoraConfig, get_peft_model

        matrices = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
        student = get_peft_model(student, LoraConfig(r=16, lora_alpha=32, target_modules=matrices))
    return student


def train(folder: Path, corpus: Path, variant: Variant, name: str) -> Qwen2ForCausalLM:
    """Train one variant under ``folder/name``, go on where it stands, or read it where it is finished.

    As many processes as torchrun starts share the work. Returns a model without a window.
    """
    output = folder / name
    done = output / "model.safetensors"
    if not done.exists():
        training, held_out = read_utterances(corpus)
        torch.manual_seed(variant.seed)
        student = student_of(folder, variant.lora, UNBOUNDED if variant.full else variant.window)
        trainer = wandlib.WandTrainer(
            model=student,
            teacher=None if variant.lora else load_teacher(folder),
            args=arguments(variant, output),
            train_dataset=training,
            eval_dataset=held_out,
            data_collator=wandlib.WandCollator(pad_token_id=END, pad_to_multiple_of=32),
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
    return _filled(load_file(folder / name / "model.safetensors"))


def arguments(variant: Variant, output: Path) -> wandlib.WandTrainingArguments:
    """Return the trainer's settings of a variant."""
    window = UNBOUNDED if variant.full else variant.window
    return wandlib.WandTrainingArguments(
        str(output),
        use_cpu=True,
        bf16=True,
        max_steps=variant.steps,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        train_sampling_strategy="group_by_length",
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
        on_policy=variant.on_policy,
        logging_steps=10,
        eval_strategy="no",
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
