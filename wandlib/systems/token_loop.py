"""Token after token from a causal model, with what each one cost: temperature, then top-k, then top-p, as upstream.

The filters are transformers' own, in the order in which ``generate`` applies them: with the same seed the tokens are
those of ``generate(do_sample=True)`` at batch 1.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from wandlib.attention.models import cache_inputs
from wandlib.systems.base import InputError

GREEDY_BELOW = 1e-3
"""A lower temperature is greedy: dividing by it would overflow."""


class Sampler:
    """Draw tokens.

    Parameters
    ----------
    seed
        Of the draws.
    temperature
        Below 0.001: greedy.
    top_k, top_p
        Keep the k likeliest tokens, and of those as many as it takes to reach the probability p.

    Raises
    ------
    InputError
        If a setting is out of its range.
    """

    def __init__(self, seed: int, temperature: float, top_k: int, top_p: float) -> None:
        for name, value, valid, range_ in (
            ("seed", seed, 0 <= seed < 2**63, "between 0 and 2**63 - 1"),
            ("temperature", temperature, 0 <= temperature <= 2, "between 0 (greedy) and 2"),
            ("top_k", top_k, top_k >= 1, "at least 1"),
            ("top_p", top_p, 0 < top_p <= 1, "above 0 and at most 1"),
        ):
            if not valid:
                raise InputError(f"{name} is {range_}, not {value}")
        self.greedy = temperature < GREEDY_BELOW
        self._filters = LogitsProcessorList()
        if not self.greedy:
            if temperature != 1:
                self._filters.append(TemperatureLogitsWarper(float(temperature)))
            self._filters.append(TopKLogitsWarper(top_k))
            if top_p < 1:
                self._filters.append(TopPLogitsWarper(float(top_p)))
        self._seed = seed
        self._generator: torch.Generator | None = None

    def __call__(self, logits: Float[Tensor, "1 vocabulary"], banned: Sequence[int] = ()) -> int:
        """The next token, which is none of ``banned``."""
        if banned:
            logits = logits.index_fill(1, torch.tensor(banned, device=logits.device), -torch.inf)
        if self.greedy:
            return int(logits.argmax())
        if self._generator is None:
            self._generator = torch.Generator(logits.device).manual_seed(self._seed)
        # The filters look at the scores alone.
        past: Any = torch.zeros(1, 1, dtype=torch.long, device=logits.device)
        scores = self._filters(past, logits.float())
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompt: Int[Tensor, "1 time"],
    cache: Any,
    sampler: Sampler,
    limit: int,
    *,
    least: int = 0,
    ends: Sequence[int] = (),
) -> Iterator[tuple[int, float]]:
    """Generated tokens, up to ``limit`` of them, each with the milliseconds from the one before (or the start).

    Parameters
    ----------
    cache
        A ``WandCache`` for a converted model, a ``DynamicCache`` otherwise.
    least, ends
        The first ``least`` tokens are none of ``ends``.
    """
    cached = cache_inputs(model, cache)
    new = prompt
    for count in range(limit):
        start = time.perf_counter()
        logits = model(input_ids=new, use_cache=True, logits_to_keep=1, **cached).logits[:, -1]
        token = sampler(logits, ends if count < least else ())
        milliseconds = 1e3 * (time.perf_counter() - start)
        yield token, milliseconds
        new = torch.tensor([[token]], device=prompt.device)
