"""Checkpoints that are whole or do not count.

transformers' Trainer writes a checkpoint file by file into its final folder, ``trainer_state.json`` last, and resumes
from the folder with the highest number, whatever is in it. Here a checkpoint counts from the moment its
``trainer_state.json`` can be read: a process killed while saving leaves a folder that is passed over, and a failed save
leaves none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

STATE = "trainer_state.json"


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint was written to its end."""
    try:
        json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the latest whole checkpoint in a folder, or None."""
    numbers = {folder: folder.name.rpartition("-")[2] for folder in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    whole = [folder for folder, number in numbers.items() if number.isdecimal() and is_complete(folder)]
    return max(whole, key=lambda folder: int(numbers[folder]), default=None)


def check_resumable(output_dir: str | Path, wanted: str | bool) -> str:
    """Return the checkpoint to go on from: ``wanted``, or, where that is True, the last whole one.

    Raises
    ------
    ValueError
        If there is none, or the one wanted is not whole.
    """
    if wanted is True:
        found = last_checkpoint(output_dir)
        if found is None:
            raise ValueError(f"{output_dir} holds no whole checkpoint: start without resuming, or check output_dir")
        return str(found)
    if not is_complete(Path(str(wanted))):
        raise ValueError(
            f"{wanted} is no whole checkpoint (its {STATE} cannot be read): the last whole one beside it is "
            f"{last_checkpoint(Path(str(wanted)).parent)}"
        )
    return str(wanted)


@contextmanager
def atomic_checkpoint(output_dir: str | Path, step: int, writer: bool) -> Iterator[None]:
    """Write the checkpoint of ``step`` in this block; where it cannot be written, nothing stays of it.

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
            f"The last whole checkpoint is {last_checkpoint(output_dir)}. Free some space, keep fewer checkpoints "
            "(save_total_limit) or write them elsewhere (output_dir), and resume"
        ) from error


def check_finite(model: nn.Module, step: int, output_dir: str | Path) -> None:
    """Raise FloatingPointError where a trained weight is NaN or infinite, so that no checkpoint keeps it."""
    for name, parameter in model.named_parameters():
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        if parameter.requires_grad and not bool(torch.isfinite(local).all()):
            raise FloatingPointError(
                f"{name} is not finite after step {step}, which is therefore not saved; the last whole checkpoint is "
                f"{last_checkpoint(output_dir)}: resume from it with a lower learning_rate"
            )
