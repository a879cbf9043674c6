"""Caches to compare: the baselines, the window, one that costs nothing; and how to fill any without the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedConfig, StaticCache
from transformers.cache_utils import DynamicLayer

from benchmarks.shapes import Shape
from wandlib import WandCache
from wandlib.attention.cache.rebuilding import Arrival, stage_rebuild
from wandlib.attention.cache.token_kinds import Kinds
from wandlib.profiling.estimate import head_shape

SINKS = 4
"""Number of first tokens that the sink cache keeps, as in StreamingLLM."""


class SinkLayer(DynamicLayer):
    """Cache layer of the first ``SINKS`` tokens and the last ones, ``slots`` in all, conditioning or not.

    Moving the entries up by one is a concatenation, as in the sink cache that transformers once had. Keys keep their
    positions; StreamingLLM rotates them again at every step, which would cost more.
    """

    keys: Any
    values: Any

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots, self.seen = slots, 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new entries and drop the oldest ones after the sinks."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.seen += key_states.shape[2]
        self.keys, read_keys = self.rolled(self.keys, key_states)
        self.values, read_values = self.rolled(self.values, value_states)
        return read_keys, read_values

    def rolled(self, held: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is kept, and what attention reads."""
        if not held.numel():
            read = new
        elif new.shape[2] > 1 or held.shape[2] < self.slots:
            read = torch.cat([held, new], dim=2)
        else:
            read = torch.cat([held[:, :, :SINKS], held[:, :, SINKS + 1 :], new], dim=2)
            return read, read
        surplus = max(0, read.shape[2] - self.slots)
        kept = torch.cat([read[:, :, :SINKS], read[:, :, SINKS + surplus :]], dim=2) if surplus else read
        return kept, read

    def get_seq_length(self) -> int:
        """Return the number of tokens so far, from which positions continue."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys that attention will read, and offset 0: all of them precede the query."""
        held = self.keys.shape[2] if self.is_initialized else 0
        return min(held + 1, self.slots) if query_length == 1 and held else held + query_length, 0


@dataclass(frozen=True)
class Baseline:
    """One way to decode."""

    cache: Callable[[Shape, int], Cache]
    """Function that makes the cache for a decode of so many tokens in all."""
    windowed: bool = False
    """Whether it decodes with the converted model."""
    reserved: bool = False
    """Whether its cache has its final length from the first step on, so that each step costs what the last one does."""


STOCK, STATIC, SINK = "DynamicCache", "StaticCache", "sink cache"
WINDOW, SHARED = "window", "window, shared prompt"
BASELINES = {
    STOCK: Baseline(lambda shape, length: DynamicCache(config=shape.config)),
    STATIC: Baseline(lambda shape, length: StaticCache(config=shape.config, max_cache_len=length), reserved=True),
    SINK: Baseline(lambda shape, length: sink_cache(shape.config, shape.conditioning + shape.window)),
    # What follows the prompt is generated, also where a timed decode is taken up again by another `generate`.
    WINDOW: Baseline(
        lambda shape, length: WandCache(shape.config, shape.window, conditioning=shape.conditioning),
        windowed=True,
    ),
    SHARED: Baseline(
        lambda shape, length: WandCache(
            shape.config, shape.window, conditioning=shape.conditioning, shared=shape.beams
        ),
        windowed=True,
    ),
}


def sink_cache(config: PreTrainedConfig, slots: int) -> Cache:
    """Return a sink cache with as many entries as the window, prompt included: it drops most of the prompt instead."""
    return Cache(layers=[SinkLayer(slots) for _ in range(config.num_hidden_layers)])


@torch.no_grad()
def fill(cache: Cache, shape: Shape, generated: int, *, batch: int, dtype: torch.dtype, device: str) -> Cache:
    """Put random keys and values of the prompt and of ``generated`` tokens into an empty cache, and return it.

    The model does not run: so a decode can be measured far from its start, where getting there would take hours.
    """
    _, heads, dimension = head_shape(shape.config)
    prompts = batch // cache.shared if isinstance(cache, WandCache) else batch

    def store(length: int) -> None:
        states = torch.randn(prompts, heads, length, dimension, dtype=dtype, device=device)
        for layer in range(shape.config.num_hidden_layers):
            cache.update(states, states, layer)

    if isinstance(cache, WandCache):
        prompt, place = Kinds(None, True, None), torch.device(device)
        stage_rebuild(cache.layout, Arrival(prompts, shape.conditioning, prompt, None, None, dtype, place))
        store(shape.conditioning)
        cache.commit()
        for _ in range(generated):
            cache.layout.stage_step(prompts, dtype, place)
            store(cache.shared)  # the sequences of a prompt, side by side
            cache.commit()
    else:
        store(shape.conditioning)
        if generated:
            store(generated)
    return cache


class FixedLayer(DynamicLayer):
    """Cache layer that returns as many entries as the window has without storing anything: it costs nothing."""

    keys: Any
    values: Any

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the initial keys and values."""
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys that attention will read, and offset 0."""
        return self.keys.shape[2], 0


def fixed_cache(shape: Shape, dtype: torch.dtype, device: str, batch: int) -> Cache:
    """Return a cache whose steps neither store nor plan."""
    _, heads, dimension = head_shape(shape.config)
    layers = shape.config.num_hidden_layers
    size = (2, batch, heads, shape.conditioning + shape.window, dimension)
    return Cache(layers=[FixedLayer(*torch.randn(size, dtype=dtype, device=device)) for _ in range(layers)])
