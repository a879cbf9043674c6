"""The slow second path: the rule as a triple loop, and decoding that recomputes the whole sequence at every step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import settings
from torch import Tensor

steady = settings(deadline=None, derandomize=True, max_examples=int(os.environ.get("EXAMPLES", "60")))
"""For property tests: the same examples in every run, and no deadline on a machine that does other work."""


def naive_visible(conditioning: Tensor, padding: Tensor, window: int, limit: int | None = None) -> Tensor:
    """Which key each query sees, [batch, time, time]; what padding sees is left False."""
    batch, time = conditioning.shape
    seen = torch.zeros(batch, time, time, dtype=torch.bool)
    generated = ~conditioning & ~padding
    for b in range(batch):
        for query in range(time):
            for key in range(query + 1):
                ago = int(generated[b, key + 1 : query + 1].sum())
                near = limit is None or query - key < limit
                real = not padding[b, query] and not padding[b, key]
                seen[b, query, key] = real and near and bool(conditioning[b, key] or ago < window)
    return seen


def dense_masks(
    conditioning: Tensor, padding: Tensor, window: int, limits: Sequence[int | None], dtype: torch.dtype = torch.float32
) -> Any:
    """The 4-D masks that put the rule under an unconverted model; padding sees itself, so that no row is empty."""
    masks = {}
    for limit in set(limits):
        seen = naive_visible(conditioning, padding, window, limit) | torch.eye(conditioning.shape[1], dtype=torch.bool)
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        masks["full_attention" if limit is None else "sliding_attention"] = mask[:, None]
    return masks if len(masks) > 1 else next(iter(masks.values()))


def positions(padding: Tensor) -> Tensor:
    """Position ids as `generate` counts them: padding takes none."""
    return ((~padding).cumsum(1) - 1).clamp(min=0)


def brute_force(
    model: Any, prompt: Tensor, steps: int, window: int, limits: Sequence[int | None], padding: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Decode greedily under the dense mask, recomputing everything at every step: tokens, and logits of every step."""
    ids, logits = prompt, []
    padding = torch.zeros_like(prompt, dtype=torch.bool) if padding is None else padding
    for _ in range(steps):
        conditioning = (torch.arange(ids.shape[1]) < prompt.shape[1]).expand_as(ids)
        mask = dense_masks(conditioning, padding, window, limits)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions(padding), use_cache=False)
        logits.append(out.logits[:, -1])
        ids = torch.cat([ids, logits[-1].argmax(-1, keepdim=True)], 1)
        padding = torch.nn.functional.pad(padding, (0, 1))
    return ids, torch.stack(logits, 1)
