"""The decode loop: prompt in, codes out one by one, with the cost of each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from wandlib import WandCache, full_attention
from wandlib.attention.models import cache_inputs
from wandlib.systems.base import Step, Trace
from wandlib.systems.cosyvoice2.language_model import CosyVoice2LM
from wandlib.systems.cosyvoice2.sampling import LengthRule, RepetitionAware


class Decoder:
    """Generate codes with repetition-aware sampling.

    Parameters
    ----------
    model
        The language model, converted by :func:`wandlib.convert`.
    sampling
        How a code is drawn.
    lengths
        How many codes a text may become.
    """

    def __init__(
        self, model: CosyVoice2LM, sampling: RepetitionAware | None = None, lengths: LengthRule | None = None
    ) -> None:
        self.model, self.sampling = model, sampling or RepetitionAware()
        self.lengths = lengths or LengthRule()

    def __call__(
        self,
        prompt: list[int],
        text_tokens: int,
        trace: Trace,
        generator: torch.Generator,
        on_step: Callable[[Step], None] | None = None,
    ) -> Iterator[int]:
        """Yield codes until an end token or the limit; ``trace`` grows with them.

        Parameters
        ----------
        prompt
            Ids of the prompt.
        text_tokens
            Tokens of the text to speak; they set the limits.
        trace
            Its window decides: None is full attention.
        generator
            Of the sampling, on the CPU.
        on_step
            Called after every step.
        """
        config, limit = self.model.config, max(1, self.lengths.maximum(text_tokens))
        minimum, past = self.lengths.minimum(text_tokens), list[int]()
        cache: Any = DynamicCache(config=config)
        if trace.window is not None:
            cache = WandCache(config, window=min(trace.window, limit))
        trace.conditioning = trace.conditioning or len(prompt)
        trace.parts.append(0)
        new, clock = prompt, time.perf_counter()
        while True:
            logits = self.logits(new, cache, full=trace.window is None)
            if len(past) < minimum:
                # As published, also for version 3, whose end token is another.
                logits = logits.index_fill(0, torch.tensor([config.codes]), -torch.inf)
            code = self.sampling(logits, past, generator)
            spent = 1000 * (time.perf_counter() - clock)
            if not past:
                trace.prefill_milliseconds += spent
            else:
                step = Step(len(trace.steps), spent, held_bytes(cache))
                trace.steps.append(step)
                if on_step is not None:
                    on_step(step)
            if code >= config.codes:
                return
            past.append(code)
            trace.parts[-1] += 1
            yield code
            if len(past) == limit:
                trace.finish = "limit"
                return
            new, clock = [code], time.perf_counter()

    @torch.inference_mode()
    def logits(self, new: list[int], cache: Any, *, full: bool) -> Tensor:
        """Return the scores of the next token, float32 on the CPU, where they are drawn from."""
        ids = torch.tensor([new], device=self.model.device)
        attention: AbstractContextManager[Any] = full_attention(self.model) if full else nullcontext()
        with attention:
            output = self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **cache_inputs(self.model, cache))
        return output.logits[0, -1].float().cpu()


def held_bytes(cache: Any) -> int:
    """Return the bytes of keys and values that a cache holds."""
    if isinstance(cache, WandCache):
        return cache.nbytes
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
