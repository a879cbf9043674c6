"""Tokens drawn as ``generate`` draws them: transformers' own filters, and a draw from all tokens that are left."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper


class DrawsOfGenerate:
    """Stands in for :class:`wandlib.systems.decoding.Sampler`, which draws from the same chances by another way."""

    def __init__(self, seed: int, temperature: float, top_k: int, top_p: float = 1.0) -> None:
        self.filters = LogitsProcessorList([TopKLogitsWarper(top_k)])
        if temperature != 1:
            self.filters.insert(0, TemperatureLogitsWarper(temperature))
        if top_p < 1:
            self.filters.append(TopPLogitsWarper(top_p))
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, scores: Tensor, past: list[int]) -> int:
        chances = self.filters(torch.zeros(1, 1, dtype=torch.long), scores[None].float()).softmax(-1)
        return int(torch.multinomial(chances, 1, generator=self.generator))


class Script:
    """Says the tokens that it was given, whatever the model makes of it."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def __call__(self, scores: Tensor, past: list[int]) -> int:
        return self.tokens[len(past)]
