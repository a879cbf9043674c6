"""Step times: of stock ``generate`` from inside, of any function from outside, of rivals in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from wandlib.attention.models import cache_inputs

Key = TypeVar("Key", bound=Hashable)
Runner = Callable[[int], list[float]]
"""Takes so many steps and returns the milliseconds of each."""


def now(device: str) -> float:
    """Seconds on a clock, once the device has done what it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(LogitsProcessor):
    """Writes down when ``generate`` has the logits of a step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Note the time; the scores stay as they are."""
        self.times.append(now(self.device))
        return scores


class Generate:
    """Stock ``generate``, greedy or with beams: each call goes on where the last one stopped.

    Times are from logits to logits, so that what ``generate`` does once a call is left out.

    Parameters
    ----------
    cache
        Empty, or filled with ``batch`` x ``beams`` sequences.
    prompt
        Tokens to start from when the cache is empty.
    """

    def __init__(self, model: PreTrainedModel, cache: Cache, *, prompt: int, batch: int, beams: int = 1) -> None:
        self.model, self.cache, self.prompt, self.batch, self.beams = model, cache, prompt, batch, beams

    def __call__(self, steps: int) -> list[float]:
        """Take ``steps`` steps; milliseconds of each."""
        device = str(self.model.device)
        held = int(self.cache.get_seq_length())
        ids = torch.ones(self.batch, held + 1 if held else self.prompt, dtype=torch.long, device=device)
        clock = Clock(device)
        self.model.generate(  # type: ignore[operator]
            ids,
            attention_mask=torch.ones_like(ids),
            **cache_inputs(self.model, self.cache),
            max_new_tokens=steps + 1,
            num_beams=self.beams,
            do_sample=False,
            logits_processor=LogitsProcessorList([clock]),
        )
        return [1e3 * float(ms) for ms in np.diff(clock.times)]


class Steps:
    """A function that is one step; each call of this takes one step more than it times, to be warm."""

    def __init__(self, step: Callable[[], Any], device: str) -> None:
        self.step, self.device = step, device

    @torch.inference_mode()
    def __call__(self, steps: int) -> list[float]:
        """Take ``steps`` steps; milliseconds of each."""
        self.step()
        times = [now(self.device)]
        for _ in range(steps):
            self.step()
            times.append(now(self.device))
        return [1e3 * float(ms) for ms in np.diff(times)]


class Loop:
    """A decode loop around the bare model: one step is a forward pass and an argmax."""

    def __init__(self, model: Any, cache: Cache, token: Tensor) -> None:
        self.model, self.cache, self.token = model, cache, token

    def __call__(self) -> None:
        """Decode one token."""
        output = self.model(input_ids=self.token, **cache_inputs(self.model, self.cache), use_cache=True)
        self.token = output.logits.argmax(-1)


def in_turn(runners: Mapping[Key, Runner], *, rounds: int, steps: int) -> dict[Key, list[float]]:
    """Let every runner take ``steps`` steps, ``rounds`` times over; the median milliseconds of each visit.

    Rivals side by side in one round meet the same machine, whatever else it is doing; every other round goes backwards,
    so that a machine that slows down and recovers favours none of them. A round before the first does not count.
    """
    taken: dict[Key, list[float]] = {key: [] for key in runners}
    for turn in range(rounds + 1):
        for key in reversed(list(runners)) if turn % 2 else runners:
            ms = statistics.median(runners[key](steps))
            if turn:
                taken[key].append(ms)
    return taken


def ratio(above: list[float], below: list[float]) -> float:
    """Median over the rounds of one's time divided by the other's."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
