"""What the recipe's small training loops share: schedule, averaging, checkpoints, log."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm


def cosine(step: int, total: int, warm_up: int = 100, hold: float = 0.0, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, constant up to the share ``hold`` of the run, cosine down to ``floor``."""
    if step < warm_up:
        return (step + 1) / warm_up
    start = max(warm_up, hold * total)
    if step < start:
        return 1.0
    progress = min(1.0, (step - start) / max(1, total - start))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class Average:
    """Exponential moving average of a model's parameters, at first faster so that it forgets the start."""

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().clone() for name, value in model.named_parameters()}
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        names, values = zip(*model.named_parameters(), strict=True)
        torch._foreach_lerp_([self.shadow[name] for name in names], [value.detach() for value in values], 1 - decay)

    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's parameters with their averages."""
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(self.shadow[name])


def join() -> tuple[int, int]:
    """(processes, number of this one): joins the others where torchrun started several."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    return world, rank


def _first_rank(value: float) -> float:
    """The first process's value, so that all processes agree on the time."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)


def _average_gradients(model: nn.Module) -> None:
    """Mean of the gradients over processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, piece in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def save(path: Path, state: dict[str, object]) -> None:
    """A checkpoint that is either old or new, never half written."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def train(
    name: str,
    folder: Path,
    model: nn.Module,
    optimisers: list[torch.optim.Optimizer],
    step: Callable[[int], dict[str, torch.Tensor]],
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
        Takes the step's number, which seeds its batch, and returns losses; "loss" is the one to minimise.
    total_steps
        Of the schedule.
    every
        Steps between checkpoints, validations and log lines.
    seconds
        A budget of wall time: the schedule then follows time, not steps, and training ends when it is spent. Time of
        earlier runs counts.

    Raises
    ------
    FloatingPointError
        When the loss is not finite; the last checkpoint stands.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / f"{name}.pt", folder / f"{name}.jsonl"
    base = [[group["lr"] for group in optimiser.param_groups] for optimiser in optimisers]
    first, spent = 0, 0.0
    state = torch.load(path, weights_only=True) if path.exists() else {}
    if state:
        model.load_state_dict(state["model"], strict=False)  # a tied weight need not be there twice
    average = Average(model, decay)
    if "optimisers" in state:  # else there are only weights to start from, of recipes.mini.shipped
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        average.shadow, average.updates = state["average"], state["updates"]
        first, spent = state["step"], state["spent"]
    started = time.monotonic() - spent
    alone = not dist.is_initialized() or dist.get_rank() == 0
    total = total_steps if seconds is None else round(seconds)
    progress = tqdm(
        total=total,
        initial=min(total, first if seconds is None else round(spent)),
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
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                "average": average.shadow,
                "updates": average.updates,
                "step": number,
                "spent": time.monotonic() - started,
            },
        )

    for number in range(first, total_steps):
        elapsed = _first_rank(time.monotonic() - started)
        if seconds is not None and elapsed >= seconds:
            break
        # After the warm-up, a budget of time lays the same curve over the clock.
        timed = seconds is not None and number >= warm_up
        place = max(warm_up, int(total_steps * elapsed / seconds)) if timed else number
        factor = cosine(place, total_steps, warm_up, hold)
        for optimiser, rates in zip(optimisers, base, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        losses = step(number)
        loss = losses["loss"]
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{name}: loss is {loss.item()} at step {number}; the last checkpoint is {path}")
        loss.backward()
        _average_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        average.update(model)
        done = number + 1
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        count += 1
        at = number + 1 if seconds is None else int(time.monotonic() - started)
        progress.update(min(at, total) - progress.n)
        if (number + 1) % every == 0 and alone:
            line = {"step": number + 1, "seconds": round(time.monotonic() - started, 1), "factor": round(factor, 4)}
            line |= {key: round(value / count, 4) for key, value in sums.items()}
            if validate is not None:
                own = {key: value.detach().clone() for key, value in model.named_parameters()}
                average.copy_to(model)
                model.eval()
                with torch.no_grad():
                    line |= {f"validation_{key}": round(value, 4) for key, value in validate().items()}
                model.train()
                with torch.no_grad():
                    for key, value in model.named_parameters():
                        value.copy_(own[key])
            checkpoint(number + 1)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            progress.set_postfix(step=number + 1, loss=line["loss"])
            sums, count = {}, 0
    progress.close()
    if alone and done % every:
        checkpoint(done)
    average.copy_to(model)
