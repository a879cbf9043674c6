"""An hour in one decode: text blocks come and expire, and a step late costs what a step early costs.

The decode is a pinned reference, then blocks of text, each followed by its codes. Two decodes stand beside one another,
one after a minute, one a minute before the hour's end, and go on in turn, block by block: text and codes, real passes
of the model. Up to there their caches are filled, by the passes' own plans, with random keys in place of the model's.
Full attention is filled in the same way, as far as memory goes.
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from transformers import Cache, DynamicCache

from benchmarks.report import Result, Row
from benchmarks.shapes import Shape, cosyvoice2, mini
from benchmarks.suite import Settings
from benchmarks.timing import Runner, interleave, now, ratio
from wandlib import WandCache
from wandlib.attention.cache.rebuilding import Arrival, stage_rebuild
from wandlib.attention.cache.token_kinds import Kinds
from wandlib.attention.models import cache_inputs
from wandlib.profiling.estimate import cache_bytes, head_shape

MINUTE, HOUR = 60.0, 3600.0
PINNED, BLOCKS = 76, 2
TEXTS = (25, 40, 31, 52, 18, 45, 36, 60)
"""Tokens of the text blocks, over and over."""
CODES = 75
"""Codes of a block: 3 s at 25 a second."""
LAYERS = 3
"""Of CosyVoice 2's 24: the share of attention in a step is the same in each."""
MOST = 4e9
"""Bytes that full attention may take; filling copies them once."""


class Stream:
    """One decode; a call decodes a text block and all its codes, and returns the mean milliseconds of a code.

    Parameters
    ----------
    cache
        Empty: a WandCache, or a DynamicCache for a model under full attention.
    """

    def __init__(self, model: Any, cache: Cache, shape: Shape, codes: int) -> None:
        self.model, self.cache, self.shape, self.codes = model, cache, shape, codes
        self.texts: Iterator[int] = itertools.cycle(TEXTS)
        self.spoken = 0
        """Blocks so far."""

    def __call__(self, steps: int) -> list[float]:
        """Decode ``steps`` blocks, text included; mean milliseconds of a code in each."""
        device, taken = str(self.model.device), []
        for _ in range(steps):
            start = now(device)
            self.speak()
            taken.append(1e3 * (now(device) - start) / self.codes)
        return taken

    @torch.inference_mode()
    def speak(self) -> None:
        """Decode a block, greedily."""
        feed = cache_inputs(self.model, self.cache) | {"use_cache": True}
        text = torch.ones(1, self.arriving(), dtype=torch.long, device=self.model.device)
        told = {"conditioning": text.bool()} if isinstance(self.cache, WandCache) else {}
        token = self.model(input_ids=text, **told, **feed).logits[:, -1:].argmax(-1)
        for _ in range(self.codes):
            token = self.model(input_ids=token, **feed).logits.argmax(-1)

    @torch.inference_mode()
    def fill(self, blocks: int) -> None:
        """Put random keys and values of so many blocks into the cache, without running the model."""
        _, heads, dimension = head_shape(self.shape.config)
        dtype, device = self.model.dtype, self.model.device

        def store(length: int) -> None:
            states = torch.randn(1, heads, length, dimension, dtype=dtype, device=device)
            for layer in range(self.shape.config.num_hidden_layers):
                self.cache.update(states, states, layer)

        if not isinstance(self.cache, WandCache):
            if blocks:
                store(sum(self.arriving() + self.codes for _ in range(blocks)))
            return
        for _ in range(blocks):
            length = self.arriving()
            kinds = Kinds(torch.ones(1, length, dtype=torch.bool, device=device), True, None)
            stage_rebuild(self.cache.layout, Arrival(1, length, kinds, None, None, dtype, device))
            store(length)
            self.cache.commit()
            for _ in range(self.codes):
                self.cache.layout.stage_step(1, dtype, device)
                store(1)
                self.cache.commit()

    def arriving(self) -> int:
        """Count the next block's text, with the pinned tokens before the first."""
        self.spoken += 1
        return next(self.texts) + (PINNED if self.spoken == 1 else 0)


def blocks_until(shape: Shape, seconds: float, codes: int) -> int:
    """Count the blocks of at least so many seconds, in whole turns of ``TEXTS``: all start at the same text."""
    return math.ceil(shape.steps(seconds) / codes / len(TEXTS)) * len(TEXTS)


def most_blocks(shape: Shape, blocks: int, codes: int, most: float) -> int:
    """Count the blocks, at most ``blocks`` and in whole turns of ``TEXTS``, whose full cache has ``most`` bytes."""
    turn = sum(TEXTS) + len(TEXTS) * codes
    fits = int((most / cache_bytes(shape.config, conditioning=1, generated=0) - PINNED) // turn)
    return min(blocks, max(1, fits) * len(TEXTS))


def endless(settings: Settings, most: float = MOST) -> Result:
    """Return the embedded voice's shape, and CosyVoice 2's with three layers, in fp32 at batch 1."""
    part = Result()
    large = cosyvoice2(settings.quick)
    config = copy.deepcopy(large.config)
    config.num_hidden_layers = min(LAYERS, config.num_hidden_layers)
    config.layer_types = config.layer_types[: config.num_hidden_layers]
    name = f"{large.name}, {config.num_hidden_layers} layers"
    for shape in (mini(settings.quick), replace(large, name=name, config=config)):
        part.rows += hour(shape, settings, most)
    return part


def hour(shape: Shape, settings: Settings, most: float) -> list[Row]:
    """Step time and bytes of the second minute and of the last one, and of full attention as far as it goes."""
    codes = 4 if settings.quick else CODES
    early, late = (blocks_until(shape, seconds, codes) for seconds in (MINUTE, HOUR - MINUTE))
    reached = most_blocks(shape, late, codes, most)
    full, windowed = shape.build(torch.float32, settings.device)
    places = {
        "early": (windowed, early),
        "late": (windowed, late),
        "full, early": (full, early),
        "full": (full, reached),
    }
    streams = {}
    for place, (model, blocks) in places.items():
        cache: Cache = DynamicCache(config=shape.config)
        if model is windowed:
            cache = WandCache(shape.config, shape.window, pinned=PINNED, blocks=BLOCKS)
        streams[place] = Stream(model, cache, shape, codes)
        streams[place].fill(blocks)
    # A visit is a block. Sixteen, with the one that warms up, are two turns of TEXTS, 48 s: up to the minute's end.
    runners: dict[str, Runner] = dict(streams)
    windows, stock = (
        {place: runners[place] for place in pair} for pair in (("early", "late"), ("full, early", "full"))
    )
    taken = interleave(windows, rounds=settings.rounds(len(TEXTS) * 2 - 1), steps=1)
    taken |= interleave(stock, rounds=settings.rounds(2), steps=1)  # of an hour's keys: minutes
    where, seconds = f"{shape.name}, fp32, batch 1, one decode", late * codes / shape.codes_per_second
    held = {place: held_bytes(stream.cache) for place, stream in streams.items()}
    end = f"{reached * codes / shape.codes_per_second:.0f} s"
    return [
        Row(
            where,
            f"window: step after {seconds:.0f} s / in the second minute",
            ratio(taken["late"], taken["early"]),
            "<= 1.03",
        ),
        Row(where, "window: bytes then / in the second minute", held["late"] / held["early"], "<= 1.0"),
        Row(where, "window: cache, MB", held["late"] / 1e6),
        Row(
            where, f"DynamicCache: step after {end} / in the second minute", ratio(taken["full"], taken["full, early"])
        ),
        Row(where, f"DynamicCache: cache after {end}, MB", held["full"] / 1e6),
        Row(
            where,
            f"DynamicCache after {end} / window after {seconds:.0f} s",
            statistics.median(taken["full"]) / statistics.median(taken["late"]),
        ),
    ]


def held_bytes(cache: Any) -> int:
    """Bytes of keys and values."""
    if isinstance(cache, WandCache):
        return cache.nbytes
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
