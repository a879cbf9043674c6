"""A speech system without a model: a beep for every word, at once or as slowly as a test needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from wandlib.systems.base import InputError, Settings, SpeechSystem, Trace, Utterance
from wandlib.systems.streaming import AtOnce

CONDITIONING = 20
BYTES_PER_TOKEN = 1000
STEPS_PER_WORD = 10
CRASH = "please crash"
CRASH_DETAIL = "a detail nobody outside may see"


class FakeSystem(SpeechSystem):
    """Speaks ``STEPS_PER_WORD`` codes a word; the pitch tells the speaker, the seed and the attention apart."""

    name = "fake"
    sample_rate = 16_000
    codes_per_second = 25.0
    window = 8

    def __init__(self, seconds_per_step: float = 0.0) -> None:
        self.seconds_per_step = seconds_per_step
        self.requests: list[dict[str, object]] = []
        self.steps_made = 0

    @property
    def speakers(self) -> list[str]:
        """Two."""
        return ["low", "high"]

    def utterances(
        self, texts: Iterator[str], reference: str | Path | None, settings: Settings, *, streaming: bool
    ) -> Iterator[Utterance]:
        """Beep."""
        for text in texts:
            self.requests.append(
                {
                    "text": text,
                    "reference": reference,
                    "attention": settings.attention,
                    "window": settings.window,
                    "seed": settings.seed,
                    "temperature": settings.temperature,
                }
            )
            if not text.strip():
                raise InputError("the text is empty: write a sentence of up to <1000> characters")
            if text == CRASH:
                raise RuntimeError(CRASH_DETAIL)
            frequency = self._frequency(reference) + settings.seed + (50 if settings.attention == "window" else 0)

            def beep(codes: NDArray[np.int64], frequency: float = frequency) -> NDArray[np.float32]:
                samples = int(len(codes) / self.codes_per_second * self.sample_rate)
                wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(samples) / self.sample_rate)
                return wave.astype(np.float32)

            yield Utterance(
                model=None,
                prompt=torch.zeros(1, CONDITIONING, dtype=torch.long),
                choose=lambda scores, past: len(past),
                ends=frozenset(),
                limit=STEPS_PER_WORD * len(text.split()),
                sound=AtOnce(beep),
            )

    def codes(self, utterance: Utterance, trace: Trace, on_step: Any) -> Iterator[int]:
        """Count, as slowly as asked for, with costs as full attention and a window have them."""
        trace.conditioning = CONDITIONING
        trace.parts.append(utterance.limit)
        for index in range(utterance.limit):
            time.sleep(self.seconds_per_step)
            self.steps_made += 1
            kept = index + 1 if trace.window is None else min(index + 1, trace.window)
            milliseconds = 2.0 + (0.01 * index if trace.window is None else 0.0)
            step = trace.add_step(milliseconds, (CONDITIONING + kept) * BYTES_PER_TOKEN)
            if on_step:
                on_step(step)
            yield index

    def _frequency(self, reference: str | Path | None) -> float:
        if reference is None or reference == "low":
            return 220.0
        if reference == "high":
            return 440.0
        try:
            samples, _ = soundfile.read(reference)
        except soundfile.LibsndfileError as problem:
            raise InputError(f"{Path(reference).name!r} is not sound: give a .wav, .flac or .ogg file") from problem
        if not np.abs(samples).max(initial=0.0) > 0:
            raise InputError("the reference is silent: record it again, closer to the microphone")
        return 330.0
