"""Benchmark of distillation: what the teacher adds to a training step."""

from __future__ import annotations

from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.report import Result, Row
from benchmarks.shapes import mini
from benchmarks.suite import DTYPES, Settings
from benchmarks.timing import Runner, interleave, now, ratio

BATCH, PROMPT, GENERATED = 8, 120, 180
DISTILLED, ENTROPY, STOCK_LOSS = "distillation", "the trainer's cross-entropy", "the model's own loss"


def distillation(settings: Settings) -> Result:
    """Compare forward and backward of cross-entropy and KL with cross-entropy alone, at the embedded voice's shape."""
    result, shape = Result(), mini(settings.quick)
    for bits in DTYPES:
        taken = interleave(step_runners(settings, bf16=bits == "bf16"), rounds=settings.rounds(5), steps=1)
        where = f"{shape.name}, {bits}, {BATCH} x {PROMPT + GENERATED} tokens"
        for plain, target in ((ENTROPY, "<= 1.7"), (STOCK_LOSS, "")):
            result.rows.append(Row(where, f"{DISTILLED} / {plain}", ratio(taken[DISTILLED], taken[plain]), target))
    return result


def step_runners(settings: Settings, *, bf16: bool) -> dict[str, Runner]:
    """Return forward and backward of one student on one batch, by loss; weights and gradients stay in float32."""
    from wandlib.distillation.trainer import WandTrainer, WandTrainingArguments

    shape, device = mini(settings.quick), settings.device
    teacher, student = (shape.build(torch.float32, device)[windowed] for windowed in (0, 1))
    with TemporaryDirectory() as folder:

        def trainer(kl_weight: float) -> Any:
            arguments = WandTrainingArguments(
                folder, kl_weight=kl_weight, bf16=bf16, use_cpu=device == "cpu", report_to="none", disable_tqdm=True
            )
            return WandTrainer(model=student, teacher=teacher, args=arguments, train_dataset=[{}])

        distilling, plain = trainer(1.0), trainer(0.0)
    ids = torch.randint(1, shape.config.vocab_size, (BATCH, PROMPT + GENERATED))
    samples = [{"input_ids": row, "conditioning": PROMPT} for row in ids]
    batch = {name: value.to(device) for name, value in plain.data_collator(samples).items()}
    counted = BATCH * GENERATED
    student.train()

    def timed(loss: Callable[[], Any]) -> Runner:
        def run(steps: int) -> list[float]:
            milliseconds = []
            for _ in range(steps):
                student.zero_grad()
                start = now(device)
                with plain.accelerator.autocast():
                    value = loss()
                value.backward()
                milliseconds.append(1e3 * (now(device) - start))
            return milliseconds

        return run

    return {
        DISTILLED: timed(lambda: distilling.compute_loss(student, batch, num_items_in_batch=counted)),
        ENTROPY: timed(lambda: plain.compute_loss(student, batch, num_items_in_batch=counted)),
        STOCK_LOSS: timed(lambda: student(**batch).loss),
    }
