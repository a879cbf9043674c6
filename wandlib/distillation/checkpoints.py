"""Checkpoints that are complete or do not count, and none with numbers that are not finite.

transformers' Trainer writes a checkpoint file by file into its final folder, ``trainer_state.json`` last, and resumes
from the folder with the highest number, whatever is in it. Here a checkpoint counts from the moment its
``trainer_state.json`` can be read: a process killed while saving leaves a folder that is skipped, and a failed save
leaves none.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

STATE = "trainer_state.json"


def is_complete(folder: Path) -> bool:
    """Return whether a checkpoint was written to its end."""
    try:
        json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the latest complete checkpoint in a folder, or None."""
    numbers = {folder: folder.name.rpartition("-")[2] for folder in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    complete = [folder for folder, number in numbers.items() if number.isdecimal() and is_complete(folder)]
    return max(complete, key=lambda folder: int(numbers[folder]), default=None)


def check_resumable(output_dir: str | Path, wanted: str | bool) -> str:
    """Return the checkpoint to resume from: ``wanted``, or, where that is True, the last complete one.

    Raises
    ------
    ValueError
        If there is none, or the one wanted is incomplete.
    """
    if wanted is True:
        found = last_checkpoint(output_dir)
        if found is None:
            raise ValueError(f"{output_dir} holds no complete checkpoint: start without resuming, or check output_dir")
        return str(found)
    if not is_complete(Path(str(wanted))):
        raise ValueError(
            f"{wanted} is no complete checkpoint (its {STATE} cannot be read): the last complete one in its folder is "
            f"{last_checkpoint(Path(str(wanted)).parent)}"
        )
    return str(wanted)


@contextmanager
def atomic_checkpoint(output_dir: str | Path, step: int, writer: bool) -> Iterator[None]:
    """Write the checkpoint of ``step`` in this block; if it cannot be written, nothing of it is left.

    Parameters
    ----------
    writer
        Whether this process writes the checkpoint.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    folder = Path(output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
    if writer:
        (folder / STATE).unlink(missing_ok=True)  # an earlier run's, which would vouch for a half-written folder
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is each of these: json, torch, safetensors
        if writer:
            shutil.rmtree(folder, ignore_errors=True)
        free = shutil.disk_usage(output_dir).free
        raise OSError(
            f"could not write the checkpoint of step {step} to {output_dir} ({free / 1e6:.0f} MB are free): {error}. "
            f"The last complete checkpoint is {last_checkpoint(output_dir)}. Free some space, keep fewer checkpoints "
            "(save_total_limit) or write them elsewhere (output_dir), and resume"
        ) from error


@contextmanager
def own_rates(optimizer: Any, scheduler: Any) -> Iterator[None]:
    """Keep the learning rates that were asked for, while this block restores the ones of a checkpoint.

    A checkpoint brings back the optimizer's rates and the scheduler's, so that a run which diverged and is resumed with
    a lower ``learning_rate`` would go on with the old one. Where the rates are the same, nothing is changed.
    """
    asked = [group.get("initial_lr") for group in optimizer.param_groups]
    yield
    restored = [group.get("initial_lr") for group in optimizer.param_groups]
    if asked == restored or None in [*asked, *restored]:
        return
    for group, own, other in zip(optimizer.param_groups, asked, restored, strict=True):
        group["initial_lr"], group["lr"] = own, group["lr"] * own / other
    schedule = getattr(scheduler, "scheduler", scheduler)  # accelerate wraps it
    if hasattr(schedule, "base_lrs"):
        schedule.base_lrs, schedule._last_lr = asked, [group["lr"] for group in optimizer.param_groups]


def check_weights(model: nn.Module, step: int, output_dir: str | Path) -> None:
    """Raise FloatingPointError where a trained weight is NaN or infinite, so that no checkpoint contains it."""
    for name, parameter in model.named_parameters():
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        if parameter.requires_grad and not bool(torch.isfinite(local).all()):
            raise FloatingPointError(
                f"{name} is not finite after step {step}, which is therefore not saved; the last complete checkpoint "
                f"is {last_checkpoint(output_dir)}: resume from it with a lower learning_rate"
            )


def check_loss(loss: Tensor, parts: str, step: int, args: TrainingArguments) -> None:
    """Raise FloatingPointError where the loss is NaN or infinite; ``parts`` says what it consists of."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the loss is {value} at step {step} ({parts}); the last complete checkpoint is "
            f"{last_checkpoint(str(args.output_dir))}: resume from it with a lower learning_rate (now "
            f"{args.learning_rate:g}), a longer warm-up, or bf16 instead of fp16"
        )
