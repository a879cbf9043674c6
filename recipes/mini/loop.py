"""What the recipe's small training loops share: schedule, averaging, checkpoints, log."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm


def cosine(step: int, total: int, warm_up: int = 100, hold: float = 0.0, floor: float = 0.02) -> float:
    """Return the learning rate's factor: linear warm-up, constant until ``hold`` of the run, cosine to ``floor``."""
    if step < warm_up:
        return (step + 1) / warm_up
    start = max(warm_up, hold * total)
    if step < start:
        return 1.0
    progress = min(1.0, (step - start) / max(1, total - start))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def averaged(model: nn.Module, decay: float = 0.999) -> AveragedModel:
    """Return an exponential moving average of the model's parameters, at first faster so that it forgets the start."""

    def update(averages: list[Tensor], values: list[Tensor], updates: Tensor) -> None:
        rate = min(decay, (1 + int(updates)) / (10 + int(updates)))
        torch._foreach_lerp_(averages, values, 1 - rate)

    return AveragedModel(model, multi_avg_fn=update)


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters by name, a tied weight once."""
    return {name: value.detach() for name, value in model.named_parameters()}


@torch.no_grad()
def load_parameters(model: nn.Module, parameters: dict[str, Tensor]) -> None:
    """Overwrite the model's parameters."""
    for name, value in model.named_parameters():
        value.copy_(parameters[name])


def join() -> tuple[int, int]:
    """Join the other processes where torchrun started several; returns how many there are, and this one's number."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    return world, rank


def computes_half() -> bool:
    """Whether this CPU multiplies matrices in bfloat16; one that cannot takes eighty times as long as in 32 bits."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: str = "cpu") -> torch.autocast:
    """Compute in bfloat16 where the device does it by itself, else in 32 bits."""
    return torch.autocast(device, torch.bfloat16, enabled=device != "cpu" or computes_half())


def sum_of(weights: Mapping[str, Tensor]) -> str:
    """Return a number that tells weights apart, the same in 16 and in 32 bits."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(name.encode() + value.detach().to(torch.bfloat16).view(torch.int16).numpy().tobytes())
    return found.hexdigest()


def clock() -> float:
    """Seconds that the processor worked for this process, on each of its threads: what else runs costs no training."""
    return time.process_time() / torch.get_num_threads()


def _first_rank(value: float) -> float:
    """Return the first process's value, so that all processes agree on the time."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)


def _average_gradients(model: nn.Module) -> None:
    """Average the gradients over processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, piece in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def save(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint that is either old or new, never half written."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def train(
    name: str,
    folder: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    step: Callable[[int], dict[str, Tensor]],
    total_steps: int,
    validate: Callable[[], dict[str, float]] | None = None,
    *,
    warm_up: int = 100,
    hold: float = 0.0,
    clip: float = 1.0,
    every: int = 250,
    decay: float = 0.999,
    seconds: float | None = None,
) -> None:
    """Train, resumably: ``folder/name.pt`` holds everything, ``folder/name.jsonl`` the log.

    Parameters
    ----------
    step
        Takes the step's number, which seeds its batch, and returns losses; "loss" is the one to minimize.
    total_steps
        Length of the schedule.
    every
        Steps between checkpoints, validations and log lines.
    seconds
        Budget of time by :func:`clock`: the schedule then follows time, not steps, and training ends when it is spent.
        Time of earlier runs counts.

    Raises
    ------
    FloatingPointError
        When the loss is not finite; the last checkpoint remains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / f"{name}.pt", folder / f"{name}.jsonl"
    first, elapsed = 0, 0.0
    state = torch.load(path, weights_only=True) if path.exists() else {}
    if state:
        model.load_state_dict(state["model"], strict=False)  # a tied weight need not be there twice
    average = averaged(model, decay)
    if "optimizers" in state:  # else there are only weights to start from, of recipes.mini.shipped
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        load_parameters(average.module, state["average"])
        average.n_averaged.fill_(state["updates"])
        first, elapsed = state["step"], state["spent"]

    def factor(number: int) -> float:
        # After the warm-up, a budget of time lays the same curve over the clock.
        timed = seconds is not None and number >= warm_up
        place = max(warm_up, int(total_steps * elapsed / seconds)) if timed else number
        return cosine(place, total_steps, warm_up, hold)

    schedules = [LambdaLR(optimizer, factor, last_epoch=first - 1) for optimizer in optimizers]
    started = clock() - elapsed
    alone = not dist.is_initialized() or dist.get_rank() == 0
    total = total_steps if seconds is None else round(seconds)
    progress = tqdm(
        total=total,
        initial=min(total, first if seconds is None else round(elapsed)),
        desc=name,
        unit="step" if seconds is None else "s",
        mininterval=5,
        disable=not alone,
    )
    sums: dict[str, float] = {}
    count = done = 0

    def checkpoint(number: int) -> None:
        save(
            path,
            {
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "average": parameters(average.module),
                "updates": int(average.n_averaged),
                "step": number,
                "spent": clock() - started,
            },
        )

    for number in range(first, total_steps):
        elapsed = _first_rank(clock() - started)
        if seconds is not None and elapsed >= seconds:
            break
        losses = step(number)
        loss = losses["loss"]
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{name}: loss is {loss.item()} at step {number}; the last checkpoint is {path}")
        loss.backward()
        _average_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        rate = factor(number)
        for schedule in schedules:
            schedule.step()
        average.update_parameters(model)
        done = number + 1
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        count += 1
        at = number + 1 if seconds is None else int(clock() - started)
        progress.update(min(at, total) - progress.n)
        if (number + 1) % every == 0 and alone:
            line = {"step": number + 1, "seconds": round(clock() - started, 1), "factor": round(rate, 4)}
            line |= {key: round(value / count, 4) for key, value in sums.items()}
            if validate is not None:
                own = {key: value.clone() for key, value in parameters(model).items()}
                load_parameters(model, parameters(average.module))
                model.eval()
                with torch.no_grad():
                    line |= {f"validation_{key}": round(value, 4) for key, value in validate().items()}
                model.train()
                load_parameters(model, own)
            checkpoint(number + 1)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            progress.set_postfix(step=number + 1, loss=line["loss"])
            sums, count = {}, 0
    progress.close()
    if alone and done % every:
        checkpoint(done)
    load_parameters(model, parameters(average.module))
