"""Codes of one part of a text: stock ``generate`` with beams, as upstream calls it.

The prompt is embedded; ``generate`` is given ids in its place that only the repetition penalty sees: 1 for every
position of the prompt, then the start token. So the penalty falls on code 1 from the first step on; upstream has it so,
and the published weights were evaluated so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from wandlib.attention.models import cache_inputs
from wandlib.systems.base import InputError
from wandlib.systems.indextts.language_model import IndexLM

FILLER = 1
BEAMS = 3
TOP_P, TOP_K, TEMPERATURE = 0.8, 30, 1.0
REPETITION_PENALTY = 10.0
MOST_CODES = 600
"""As upstream: 25.6 s."""
SILENCE, LONG_SILENCE, KEPT_SILENCE = 52, 30, 10
"""The code of silence, how many of them in an utterance are too many, and how many of a run are then kept."""


class StepClock(StoppingCriteria):
    """Call ``on_step`` with the milliseconds of each step of ``generate``; stops nothing."""

    def __init__(self, on_step: Callable[[float], None]) -> None:
        self._on_step, self._last = on_step, time.perf_counter()

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        now = time.perf_counter()
        self._on_step(1e3 * (now - self._last))
        self._last = now
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Make ``generate`` draw from a seed, and leave the draws of all others as they were, until the block ends."""
    others = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=others, device_type="cuda" if device.type == "cpu" else device.type):
        torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif others:
            torch.get_device_module(device).manual_seed(seed)
        yield


@torch.inference_mode()
def generate(
    model: IndexLM,
    latents: Float[Tensor, "1 latents width"],
    text: Int[Tensor, "1 text"],
    *,
    cache: Any,
    limit: int = MOST_CODES,
    beams: int = BEAMS,
    sampled: bool = True,
    top_p: float = TOP_P,
    top_k: int = TOP_K,
    temperature: float = TEMPERATURE,
    on_step: Callable[[float], None] | None = None,
) -> Int[Tensor, "1 codes"]:
    """Codes of one part of a text, the end token included where it was generated.

    Parameters
    ----------
    latents, text
        Of the voice, and tokens of the text.
    cache
        ``WandCache(config, window, shared=beams)`` for a converted model, a ``DynamicCache``, or None.
    limit
        Most codes.
    sampled
        False: beam search or, with one beam, greedy.
    on_step
        Called with the milliseconds of each step, the prefill being the first.

    Raises
    ------
    InputError
        If ``limit`` is more than the model has positions for.
    """
    if limit > model.config.most_codes:
        raise InputError(
            f"IndexTTS has learned positions for {model.config.most_codes} codes an utterance, {limit} were asked for, "
            "and no window lifts that: a window bounds memory, not length. Split the text into more parts"
        )
    prompt = model.prefix(latents, text)
    filler = torch.full(prompt.shape[:2], FILLER, device=prompt.device)
    filler[:, -1] = model.config.start_code
    settings: dict[str, Any] = {"top_p": top_p, "top_k": top_k, "temperature": temperature} if sampled else {}
    if beams > 1:
        settings["length_penalty"] = 0.0
    clock = StoppingCriteriaList([] if on_step is None else [StepClock(on_step)])
    output: Any = model.generate(
        filler,
        inputs_embeds=prompt,
        attention_mask=torch.ones_like(filler),
        prefix_length=prompt.shape[1],
        do_sample=sampled,
        num_beams=beams,
        repetition_penalty=REPETITION_PENALTY,
        max_new_tokens=limit,
        stopping_criteria=clock,
        **({} if cache is None else cache_inputs(model.gpt, cache)),
        **settings,
    )
    generated: Tensor = output[:, prompt.shape[1] :]
    return generated


def spoken_codes(codes: Int[Tensor, "1 codes"], end: int) -> Int[Tensor, "1 spoken"]:
    """Codes before the end token; in an utterance with too much silence, no more than 10 silent codes in a run."""
    (row,) = codes.tolist()
    row = row[: row.index(end)] if end in row else row
    if row.count(SILENCE) > LONG_SILENCE:
        kept: list[int] = []
        run = 0
        for code in row:
            run = run + 1 if code == SILENCE else 0
            if run <= KEPT_SILENCE:
                kept.append(code)
        row = kept
    return torch.tensor([row], dtype=torch.long, device=codes.device)
