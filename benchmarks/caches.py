"""The rivals: which cache each one decodes with, and how to fill any of them without running the model."""

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
"""First tokens that the sink cache keeps, as in StreamingLLM."""


class SinkLayer(DynamicLayer):
    """The first ``SINKS`` tokens and the last ones, ``slots`` in all, whether or not a token was conditioning.

    Moving the entries up by one is a concatenation, as in the sink cache that transformers once had. Keys keep their
    positions; StreamingLLM rotates them anew at every step, which would cost more.
    """

    keys: Any
    values: Any

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots, self.seen = slots, 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new entries and drop the oldest that are no sinks."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.seen += key_states.shape[2]
        self.keys, read_keys = self.rolled(self.keys, key_states)
        self.values, read_values = self.rolled(self.values, value_states)
        return read_keys, read_values

    def rolled(self, held: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept, and what attention reads."""
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
        """Tokens seen so far: positions go on from here."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys attention will read, and offset 0: all of them came before the query."""
        held = self.keys.shape[2] if self.is_initialized else 0
        return min(held + 1, self.slots) if query_length == 1 and held else held + query_length, 0


@dataclass(frozen=True)
class Rival:
    """One way to decode."""

    cache: Callable[[Shape, int], Cache]
    """Makes the cache for a decode of so many tokens in all."""
    windowed: bool = False
    """Whether the model under it is the converted one."""
    reserved: bool = False
    """Whether its cache has its final length from the first step on, and so each step the cost of the last one."""


STOCK, STATIC, SINK = "DynamicCache", "StaticCache", "sink cache"
WINDOW, SHARED = "window", "window, shared prompt"
RIVALS = {
    STOCK: Rival(lambda shape, length: DynamicCache(config=shape.config)),
    STATIC: Rival(lambda shape, length: StaticCache(config=shape.config, max_cache_len=length), reserved=True),
    SINK: Rival(lambda shape, length: sink_cache(shape.config, shape.prompt + shape.window)),
    WINDOW: Rival(lambda shape, length: WandCache(shape.config, shape.window), windowed=True),
    SHARED: Rival(lambda shape, length: WandCache(shape.config, shape.window, shared=shape.beams), windowed=True),
}


def sink_cache(config: PreTrainedConfig, slots: int) -> Cache:
    """A sink cache with as many entries as the window has, prompt included: it forgets most of the prompt instead."""
    return Cache(layers=[SinkLayer(slots) for _ in range(config.num_hidden_layers)])


@torch.no_grad()
def fill(cache: Cache, shape: Shape, generated: int, *, batch: int, dtype: torch.dtype, device: str) -> Cache:
    """Put random keys and values of the prompt and of ``generated`` tokens into an empty cache. Returns it.

    The model is not run: a decode can so be measured far from its start, where running up to there would take hours.
    """
    _, heads, dimension = head_shape(shape.config)
    prompts = batch // cache.shared if isinstance(cache, WandCache) else batch

    def store(length: int) -> None:
        states = torch.randn(prompts, heads, length, dimension, dtype=dtype, device=device)
        for layer in range(shape.config.num_hidden_layers):
            cache.update(states, states, layer)

    if isinstance(cache, WandCache):
        prompt, place = Kinds(None, True, None), torch.device(device)
        stage_rebuild(cache.layout, Arrival(prompts, shape.prompt, prompt, None, None, dtype, place))
        store(shape.prompt)
        cache.commit()
        for _ in range(generated):
            cache.layout.stage_step(prompts, dtype, place)
            store(cache.shared)  # the sequences of a prompt, side by side
            cache.commit()
    else:
        store(shape.prompt)
        if generated:
            store(generated)
    return cache
