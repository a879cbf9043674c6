"""A tiny teacher, a student, a data set and a trainer for them: what the tests of training share."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from tiny_models import LANGUAGE_MODELS, VOCABULARY
from torch import nn
from transformers import PreTrainedModel

from wandlib.attention.conversion import convert
from wandlib.distillation.arguments import WandTrainingArguments
from wandlib.distillation.collator import WandCollator
from wandlib.distillation.trainer import WandTrainer

QWEN2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "qwen2")
WINDOW = 4


def build_teacher(**options: Any) -> PreTrainedModel:
    return QWEN2.build(**({"tie_word_embeddings": True} | options))


def build_student(teacher: nn.Module, window: int = WINDOW) -> Any:
    return convert(copy.deepcopy(teacher), window=window)


def utterances(count: int, longest: int = 36, seed: int = 0) -> list[dict[str, Any]]:
    """Of different lengths, with 5 to 9 tokens of conditioning."""
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    return [
        {
            "input_ids": torch.randint(1, VOCABULARY, (number(16, longest),), generator=generator),
            "conditioning": number(5, 10),
        }
        for _ in range(count)
    ]


def language(count: int, seed: int, told: bool = True) -> list[dict[str, Any]]:
    """Utterances of three speakers, each of whom has a rule for what follows what, and breaks it one time in ten.

    The first generated token names the speaker. The first of the four conditioning tokens names him too, by another
    name, but only where ``told``: a teacher that was not told looks back at the first generated token, which a window
    soon hides, and its student has to learn where else to look.
    """
    rules = torch.Generator().manual_seed(7)
    follows = torch.stack([torch.randperm(20, generator=rules) for _ in range(3)])
    generator = torch.Generator().manual_seed(seed)

    def number(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    samples = []
    for _ in range(count):
        speaker, token, said = number(3), number(20), []
        for _ in range(30):
            token = number(20) if number(10) == 0 else int(follows[speaker, token])
            said.append(1 + token)
        cue = speaker if told else number(3)
        ids = [80 + cue, *(40 + number(20) for _ in range(3)), 90 + speaker, *said]
        samples.append({"input_ids": ids, "conditioning": 4})
    return samples


def learned_teacher() -> PreTrainedModel:
    """A teacher that speaks the language, after 100 steps under full attention."""
    teacher = build_teacher(initializer_range=0.1)
    data, collate = language(400, seed=0, told=False), WandCollator()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-2)
    for step in range(100):
        batch = collate(data[step % 25 * 16 :][:16])
        del batch["conditioning"]
        teacher(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return teacher.eval()


def arguments(folder: Path, **options: Any) -> WandTrainingArguments:
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"}
    shape = {"per_device_train_batch_size": 8, "window_start": 16, "learning_rate": 1e-3}
    return WandTrainingArguments(str(folder), **(quiet | shape | options))


def build_trainer(folder: Path, teacher: nn.Module | None = None, data: Any = None, **options: Any) -> WandTrainer:
    teacher = build_teacher() if teacher is None else teacher
    data = utterances(32) if data is None else data
    return WandTrainer(
        model=build_student(teacher), teacher=teacher, args=arguments(folder, **options), train_dataset=data
    )


def losses(trainer: WandTrainer) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]
