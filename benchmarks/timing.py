"""Step times: of stock ``generate`` from inside, of any function from outside, interleaved."""

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
"""Function that takes so many steps and returns the milliseconds of each."""


def now(device: str) -> float:
    """Return the seconds on a clock, once the device has finished its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(LogitsProcessor):
    """Logits processor that records when ``generate`` has the logits of a step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Record the time and return the scores unchanged."""
        self.times.append(now(self.device))
        return scores


class Generate:
    """Stock ``generate``, greedy or with beams: each call continues where the last one stopped.

    Times are from logits to logits, which excludes what ``generate`` does once a call.

    Parameters
    ----------
    cache
        Cache, empty or filled with ``batch`` x ``beams`` sequences.
    prompt
        Number of tokens to start from when the cache is empty.
    """

    def __init__(self, model: PreTrainedModel, cache: Cache, *, prompt: int, batch: int, beams: int = 1) -> None:
        self.model, self.cache, self.prompt, self.batch, self.beams = model, cache, prompt, batch, beams

    def __call__(self, steps: int) -> list[float]:
        """Take ``steps`` steps and return the milliseconds of each."""
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
        return [1e3 * float(seconds) for seconds in np.diff(clock.times)]


class Steps:
    """Timer of a function that is one step; each call takes a step to warm up before those that it times."""

    def __init__(self, step: Callable[[], Any], device: str) -> None:
        self.step, self.device = step, device

    @torch.inference_mode()
    def __call__(self, steps: int) -> list[float]:
        """Take ``steps`` steps and return the milliseconds of each."""
        self.step()
        times = [now(self.device)]
        for _ in range(steps):
            self.step()
            times.append(now(self.device))
        return [1e3 * float(seconds) for seconds in np.diff(times)]


class Loop:
    """Decode loop around the bare model: one step is a forward pass and an argmax."""

    def __init__(self, model: Any, cache: Cache, token: Tensor) -> None:
        self.model, self.cache, self.token = model, cache, token

    def __call__(self) -> None:
        """Decode one token."""
        output = self.model(input_ids=self.token, **cache_inputs(self.model, self.cache), use_cache=True)
        self.token = output.logits.argmax(-1)


def interleave(runners: Mapping[Key, Runner], *, rounds: int, steps: int) -> dict[Key, list[float]]:
    """Let every runner take ``steps`` steps in each of ``rounds`` rounds; return the median milliseconds of each visit.

    Runners of one round meet the same machine, whatever else it is doing; every other round goes backwards, so that a
    machine that slows down and recovers favors none of them. A round before the first does not count.
    """
    taken: dict[Key, list[float]] = {key: [] for key in runners}
    for turn in range(rounds + 1):
        for key in reversed(list(runners)) if turn % 2 else runners:
            median = statistics.median(runners[key](steps))
            if turn:
                taken[key].append(median)
    return taken


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median over the rounds of one time divided by the other."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
