"""A speech system without a model: a beep for every word, at once or as slowly as a test needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from wandlib.systems.base import Attention, InputError, Speech, SpeechSystem, Step, Trace

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

    @property
    def speakers(self) -> list[str]:
        """Two."""
        return ["low", "high"]

    def synthesize(
        self,
        text: str,
        reference: str | Path | None = None,
        attention: Attention = "full",
        *,
        window: int | None = None,
        seed: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Speech:
        """Beep."""
        self.requests.append(
            {
                "text": text,
                "reference": reference,
                "attention": attention,
                "window": window,
                "seed": seed,
                "temperature": temperature,
            }
        )
        start = time.perf_counter()
        if not text.strip():
            raise InputError("the text is empty: write a sentence of up to <1000> characters")
        if text == CRASH:
            raise RuntimeError(CRASH_DETAIL)
        frequency = self._frequency(reference) + seed + (50 if attention == "window" else 0)
        size = (window or self.window) if attention == "window" else None
        steps = []
        for index in range(STEPS_PER_WORD * len(text.split())):
            time.sleep(self.seconds_per_step)
            kept = index + 1 if size is None else min(index + 1, size)
            milliseconds = 2.0 + (0.01 * index if size is None else 0.0)
            steps.append(Step(index, milliseconds, (CONDITIONING + kept) * BYTES_PER_TOKEN))
            if on_step:
                on_step(steps[-1])
        samples = int(len(steps) / self.codes_per_second * self.sample_rate)
        waveform = 0.5 * np.sin(2 * np.pi * frequency * np.arange(samples) / self.sample_rate)
        return Speech(
            waveform=waveform.astype(np.float32),
            sample_rate=self.sample_rate,
            codes=np.arange(len(steps), dtype=np.int64),
            trace=Trace(attention, size, CONDITIONING, steps=steps, finish="end"),
            text=text,
            seconds_to_compute=time.perf_counter() - start,
        )

    def stream(self, text: str, *settings: Any, **named: Any) -> Iterator[NDArray[np.float32]]:
        """The whole beep as one chunk."""
        yield self.synthesize(text, *settings, **named).waveform

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
