"""How many texts a minute the embedded voice speaks, codec included: one by one and in batches, full and window.

The texts have three sentences each, 96 to 107 phones; those of more than 100 are read in two parts, each in a cache of
its own. The output is the same at every batch size (`tests/systems/test_batching.py`).
"""

from __future__ import annotations

import itertools
import statistics

from benchmarks.report import Result, Row
from benchmarks.suite import Settings
from benchmarks.timing import Runner, interleave, now, ratio
from wandlib import load_system
from wandlib.evaluation.measurement import SENTENCES
from wandlib.systems.base import Attention, SpeechSystem

BATCHES = (1, 4, 16)
TEXTS = 16
PER_TEXT = 3
"""Sentences in a text: six to eight seconds of speech."""


class Speaker:
    """Speaks all texts in each step; returns the milliseconds for one of them."""

    def __init__(self, tts: SpeechSystem, texts: list[str], attention: Attention, batch: int) -> None:
        self.tts, self.texts, self.attention, self.batch = tts, texts, attention, batch

    def __call__(self, steps: int) -> list[float]:
        """Speak the texts ``steps`` times."""
        taken = []
        for _ in range(steps):
            start = now("cpu")
            self.tts.synthesize_many(self.texts, attention=self.attention, batch_size=self.batch)
            taken.append(1e3 * (now("cpu") - start) / len(self.texts))
        return taken


def texts(settings: Settings) -> Result:
    """Measure texts a minute at each batch size, and what the window and the batch are worth."""
    tts, count = load_system("mini", device=settings.device), 2 if settings.quick else TEXTS
    sentences = itertools.cycle(SENTENCES)
    spoken = [" ".join(itertools.islice(sentences, 1 if settings.quick else PER_TEXT)) for _ in range(count)]
    runners: dict[tuple[Attention, int], Runner] = {
        (attention, batch): Speaker(tts, spoken, attention, batch)
        for batch in (BATCHES[:2] if settings.quick else BATCHES)
        for attention in ("full", "window")
    }
    taken = interleave(runners, rounds=settings.rounds(3), steps=1)
    where, result = "embedded voice, texts of about 8 s, codec included", Result()
    for (attention, batch), milliseconds in taken.items():
        value = 60_000 / statistics.median(milliseconds)
        result.rows.append(Row(where, f"{attention}, batch {batch}: texts a minute", value))
    for (attention, batch), milliseconds in taken.items():
        if batch > 1:
            value = ratio(taken[attention, 1], milliseconds)
            result.rows.append(Row(where, f"{attention}: batch {batch} / one by one", value))
    return result
