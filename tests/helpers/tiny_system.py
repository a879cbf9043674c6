"""A speech system over a tiny random Qwen2: a word is a token, a code a sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import LANGUAGE_MODELS, VOCABULARY

from wandlib.attention.conversion import convert
from wandlib.systems.base import InputError, Settings, SpeechSystem, Utterance
from wandlib.systems.decoding import Sampler
from wandlib.systems.streaming import AtOnce

QWEN2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "qwen2")
WINDOW = 4
REFUSED = "unspeakable"


class TinySystem(SpeechSystem):
    """Speaks up to ``limit`` codes of a model, with full attention and with the window; ``ends`` may end it."""

    name = "tiny"
    sample_rate = 100
    codes_per_second = 25.0
    window = WINDOW

    def __init__(self, limit: int = 20, ends: frozenset[int] = frozenset(), *, embeds: bool = False) -> None:
        self.model: Any = convert(QWEN2.build(initializer_range=0.5).eval(), window=WINDOW)
        self.limit, self.ends, self.embeds = limit, ends, embeds
        self.calls = 0
        self.model.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1

    @property
    def speakers(self) -> list[str]:
        """None."""
        return []

    def ids(self, text: str) -> torch.Tensor:
        """The prompt: a token for each word."""
        return torch.tensor([[1, *(2 + len(word) * 7 % (VOCABULARY - 2) for word in text.split())]])

    def utterances(
        self, texts: Iterator[str], reference: str | Path | None, settings: Settings, *, streaming: bool
    ) -> Iterator[Utterance]:
        """One for each line."""
        sampler = Sampler(settings.seed, settings.temperature or 0.0, settings.top_k or 5)
        embed = self.model.get_input_embeddings()
        for line in (line for text in texts for line in text.split("|")):
            if line == REFUSED:
                raise InputError(f"cannot say {line!r}")
            ids = self.ids(line)
            yield Utterance(
                model=self.model,
                prompt=embed(ids).detach() if self.embeds else ids,
                choose=sampler,
                ends=self.ends,
                limit=self.limit + len(line) % 5,
                sound=AtOnce(lambda codes: codes.astype(np.float32)),
                embed=(lambda token: embed(torch.tensor([[token]]))) if self.embeds else None,
            )
