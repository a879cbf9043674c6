"""Sequences of a batch put together and taken apart: one may end, and another take its place, in one decode.

Keys are cached after the rotary embedding, so that entries can move from one cache to another as they are. A sequence
is taken out of its cache as :class:`Entries`; a new cache is filled with those of all sequences, without the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import hook_of
from wandlib.attention.models import base_decoder, inner_model

KeysAndValues = tuple[Float[Tensor, "kv_heads tokens _"], Float[Tensor, "kv_heads tokens _"]]


@dataclass(frozen=True)
class Entries:
    """What a cache holds of one sequence, oldest first.

    Attributes
    ----------
    layers
        Keys and values of each layer.
    conditioning
        How many of the tokens, at the start, are conditioning.
    evicted
        How many generated tokens, after those, have left the window.
    """

    layers: list[KeysAndValues]
    conditioning: int
    evicted: int = 0

    @property
    def tokens(self) -> int:
        """Tokens held."""
        return self.layers[0][0].shape[1]


def take(cache: WandCache | DynamicCache, row: int, conditioning: int, tokens: int) -> Entries:
    """Return one sequence of a cache that :func:`join`, or the prefill of a single prompt, has filled.

    Parameters
    ----------
    conditioning
        Tokens of its prompt.
    tokens
        Tokens of its prompt and generated ones.
    """
    if isinstance(cache, DynamicCache):
        layers: list[Any] = cache.layers
        pairs = [(layer.keys[row], layer.values[row]) for layer in layers]
        return Entries([(keys[:, -tokens:], values[:, -tokens:]) for keys, values in pairs], conditioning)
    counts, window, used = cache.generated, cache.window, cache[0][0].shape[2]
    ragged = isinstance(counts, Tensor)
    count = int(counts[row]) if ragged else counts
    first = used - (window if ragged else min(count, window))
    numbers = torch.arange(max(0, count - window), count)
    slots = torch.cat((torch.arange(conditioning), first + numbers % window))
    pairs = [cache[layer] for layer in range(len(cache.layers))]
    where = slots.to(pairs[0][0].device)
    return Entries(
        [(keys[row][:, where], values[row][:, where]) for keys, values in pairs], conditioning, tokens - len(slots)
    )


def join(model: Any, rows: list[Entries], window: int | None) -> WandCache | DynamicCache:
    """Return a cache that holds these sequences, for a decode that goes on with one token of each.

    Parameters
    ----------
    model
        The model that made the entries.
    window
        In keys; None: full attention, with the sequences padded at their left to one length.
    """
    length = max(row.tokens for row in rows)
    layers = [
        [torch.stack([pad(row.layers[n][part], (0, 0, length - row.tokens, 0)) for row in rows]) for part in (0, 1)]
        for n in range(len(rows[0].layers))
    ]
    if window is None:
        full = DynamicCache()
        for number, (keys, values) in enumerate(layers):
            full.update(keys, values, number)
        return full
    cache, hook, device = WandCache(inner_model(model).config, window=window), hook_of(model), layers[0][0].device
    index = torch.arange(length)[None]
    start = torch.tensor([[length - row.tokens] for row in rows])
    kinds = (index >= start) & (index < start + torch.tensor([[row.conditioning] for row in rows]))
    said: dict[str, Any] = {
        "input_ids": torch.zeros(len(rows), length, dtype=torch.long, device=device),
        "attention_mask": (index >= start).long().to(device),
        "conditioning": kinds.to(device),
    }
    cache.prepare(said, hook.decoder, base_decoder(model), None)
    for number, (keys, values) in enumerate(layers):
        cache.update(keys, values, number)
    cache.finish(None, hook.decoder)
    cache.layout.count_evicted(torch.tensor([[row.evicted] for row in rows], device=device))
    return cache
