"""The loop of every system: a prompt, then one token after another, each with what it cost.

An :class:`Utterance` says what is decoded and what becomes of it; :func:`codes` decodes it. Full attention and the
window run the same code on the same prompt: only the cache differs (WAND, arXiv 2604.08558, section 2).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import full_attention
from wandlib.attention.models import cache_inputs, inner_model
from wandlib.profiling.measure import held_bytes
from wandlib.systems.speech import Step, Trace
from wandlib.systems.streaming import Piece, SoundStream

GREEDY_BELOW = 1e-3
"""A lower temperature is greedy: dividing by it would overflow."""


@runtime_checkable
class Choose(Protocol):
    """How the next token is chosen."""

    def __call__(self, scores: Float[Tensor, " vocabulary"], past: list[int]) -> int:
        """Return a token, from the scores of all and the tokens generated so far."""


@dataclass
class Utterance:
    """One prompt, and what is to become of the tokens that follow it.

    Attributes
    ----------
    model
        A causal model of transformers; under the window, a converted one.
    prompt
        Token ids [1, time], or embeddings [1, time, width].
    choose
        How a token is chosen, such as a :class:`Sampler`.
    ends
        Tokens that end the utterance.
    limit
        Most tokens: an end for a model that finds none.
    sound
        What turns codes into sound.
    code
        The codec's code for a token; None for a token that is none (Spark-TTS's tokens of a voice).
    embed
        The model's next input for a token, [1, 1, width]; None: the token's id is the input.
    conditioning_until
        The token that ends conditioning which the model itself generates, as for :class:`WandCache`.
    cache
        A cache to go on in, where it follows other utterances in one decode; None: one of its own.
    """

    model: Any
    prompt: Tensor
    choose: Choose
    ends: frozenset[int]
    limit: int
    sound: SoundStream
    code: Callable[[int], int | None] = int
    embed: Callable[[int], Tensor] | None = None
    conditioning_until: int | None = None
    cache: Any = None

    def inputs(self, token: int) -> dict[str, Tensor]:
        """Return what the model is given for a generated token."""
        if self.embed is not None:
            return {"inputs_embeds": self.embed(token)}
        return {"input_ids": torch.tensor([[token]], device=self.prompt.device)}


class Decoded(NamedTuple):
    """One token, the wall time from the one before (or from the start) to it, and the cache's size then."""

    token: int
    milliseconds: float
    cache_bytes: int


class Sampler:
    """Draw among the best tokens.

    Parameters
    ----------
    seed
        Seed of the draws.
    temperature
        Below 0.001 the best token is taken.
    top_k, top_p
        Keep the k best tokens, and of those as many as it takes to reach the probability p.
    allowed
        Tokens that may be chosen, [tokens]; None: all.
    """

    def __init__(
        self, seed: int, temperature: float, top_k: int, top_p: float = 1.0, allowed: Tensor | None = None
    ) -> None:
        self.temperature, self.top_k, self.top_p, self.allowed = temperature, top_k, top_p, allowed
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, scores: Float[Tensor, " vocabulary"], past: list[int]) -> int:
        """Return a token. The draw is made on the CPU: a seed means the same on every device."""
        scores = scores.float().cpu()
        if self.allowed is not None:
            scores = scores[self.allowed]
        if self.temperature < GREEDY_BELOW:
            choice = int(scores.argmax())
        else:
            best, places = (scores / self.temperature).topk(min(self.top_k, len(scores)))
            chances = best.softmax(-1)
            if self.top_p < 1:
                chances = chances * (chances.cumsum(-1) - chances < self.top_p)
            choice = int(places[torch.multinomial(chances, 1, generator=self.generator)])
        return choice if self.allowed is None else int(self.allowed[choice])


def new_cache(model: Any, window: int | None, **options: Any) -> Any:
    """Return an empty cache for one decode: a :class:`WandCache` of ``window`` keys; None: a DynamicCache.

    ``options`` are further ones of :class:`WandCache`.
    """
    config = inner_model(model).config
    return DynamicCache(config=config) if window is None else WandCache(config, window=window, **options)


def attention_of(model: Any, window: int | None) -> AbstractContextManager[Any]:
    """Return the context for one call of the model: a converted model without a window runs under full attention."""
    converted = getattr(inner_model(model).config, "wand", None) is not None
    return full_attention(model) if window is None and converted else nullcontext()


@torch.inference_mode()
def decode(utterance: Utterance, window: int | None) -> Iterator[Decoded]:
    """Yield generated tokens without end, the first from the prompt; end tokens are tokens like others.

    Parameters
    ----------
    window
        In keys; None: full attention.
    """
    model, past = utterance.model, list[int]()
    cache = utterance.cache
    if cache is None:
        keys = None if window is None else min(window, utterance.limit)
        cache = new_cache(model, keys, conditioning_until=utterance.conditioning_until)
    kept: dict[str, Any] = cache_inputs(model, cache) | {"use_cache": True}
    if "logits_to_keep" in inspect.signature(inner_model(model).forward).parameters:
        kept["logits_to_keep"] = 1
    new = {"inputs_embeds" if utterance.prompt.is_floating_point() else "input_ids": utterance.prompt}
    while True:
        clock = time.perf_counter()
        # Around the call and not around the yield: a stream at rest must not change what others see.
        with attention_of(model, window):
            scores = model(**new, **kept).logits[0, -1]
        past.append(utterance.choose(scores, past))
        yield Decoded(past[-1], 1000 * (time.perf_counter() - clock), held_bytes(cache))
        new = utterance.inputs(past[-1])


def codes(utterance: Utterance, trace: Trace, on_step: Callable[[Step], None] | None = None) -> Iterator[int]:
    """Yield the codes of one utterance as they come; the trace grows with them, and its window decides.

    Parameters
    ----------
    on_step
        Called after every step, in this thread.
    """
    trace.conditioning = trace.conditioning or utterance.prompt.shape[1]
    trace.parts.append(0)
    described = utterance.conditioning_until is not None and len(trace.parts) == 1
    for number, made in enumerate(decode(utterance, trace.window)):
        if number == 0:
            trace.prefill_milliseconds += made.milliseconds
        else:
            step = trace.add_step(made.milliseconds, made.cache_bytes)
            if on_step is not None:
                on_step(step)
        if made.token in utterance.ends:
            return
        if number == utterance.limit:
            trace.finish = "limit"
            return
        if described:  # conditioning that the model generates, up to and with the token that ends it
            trace.conditioning += 1
            described = made.token != utterance.conditioning_until
        code = utterance.code(made.token)
        if code is not None:
            trace.parts[-1] += 1
            yield code


def pieces(utterances: Iterator[Utterance], codes: Callable[[Utterance], Iterator[int]]) -> Iterator[Piece]:
    """Yield codes and the sound that they complete, of one utterance after another."""
    for utterance in utterances:
        new = list[int]()
        for code in codes(utterance):
            new.append(code)
            sound = utterance.sound.push(code)
            if len(sound):
                yield new, sound
                new = []
        yield new, utterance.sound.finish()
