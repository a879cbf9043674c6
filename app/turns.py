"""Several ways to say one text, decoded in turn, step by step, in one thread: other load of the machine hits all alike.

A :class:`Side` is one way: a system, an attention and a window. :func:`take_turns` advances each side by one step, then
the next, and goes through them forwards and backwards by turns, so that none is always the first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wandlib.systems.base import Attention, InputError, SpeechSystem, Step, Utterance
from wandlib.systems.settings import Long
from wandlib.systems.speech import Chunk

Sound = NDArray[np.float32]


class StoppedError(Exception):
    """Ends a decode whose result is no longer wanted."""


class Side:
    """One way to say the text, what it has cost so far, and how it ended.

    Parameters
    ----------
    key
        A short name for addresses and files.
    label
        What the page calls it.
    on_sound
        Called with each piece of sound, shape [samples].

    Attributes
    ----------
    seconds
        Wall time of this side's own turns.
    samples
        Length of its sound so far.
    weight_bytes
        Of the decoder; 0 as long as it is not known.
    ended
        "" while it speaks; then "end", "limit" (it found no end), "memory" (its cache outgrew what it may take),
        "failed" (``failure`` says why) or "stopped".
    one_cache
        Whether the parts of a long text share a cache.
    rings
        Slots of the window's ring in each part: a part that cannot get so long has fewer than the window.
    """

    def __init__(
        self, key: str, label: str, system: SpeechSystem, attention: Attention, window: int | None = None
    ) -> None:
        self.key, self.label, self.system = key, label, system
        self.attention, self.window = attention, window
        self.trace = system.new_trace(system.settings_type.make({"attention": attention, "window": window}))
        self.on_sound: Callable[[Sound], None] = lambda sound: None
        self.seconds, self.samples, self.weight_bytes = 0.0, 0, 0
        self.ended, self.failure, self.one_cache = "", "", False
        self.rings: list[int] = []
        self._turn = time.perf_counter()
        self._utterances: Iterator[Utterance] = iter(())

    def prepare(
        self,
        texts: Iterable[str],
        reference: Any,
        seed: int,
        temperature: float | None,
        long: Long | None = None,
        transcript: str | None = None,
    ) -> None:
        """Read text and reference, without a step: what is wrong with them is known before anything changes.

        Raises
        ------
        InputError
            As :meth:`SpeechSystem.utterances`.
        """
        given: dict[str, Any] = {
            "attention": self.attention,
            "window": self.window,
            "seed": seed,
            "temperature": temperature,
            "transcript": transcript,
        }
        if self.system.long_in_one_cache:
            given["long"] = long
        settings = self.system.settings_type.make(given)
        rest = self.system.utterances(iter(texts), reference, settings, streaming=True)
        first = next(rest)
        self.weight_bytes, self.one_cache = _weight_bytes(first.model), first.cache is not None
        self._utterances = _chain(first, rest)

    def steps(self, stop: threading.Event) -> Iterator[None]:
        """Yield after every step, until the text has been said."""

        def on_step(step: Step) -> None:
            if stop.is_set():
                raise StoppedError

        for utterance in self._utterances:
            if self.trace.window is not None:
                limit = utterance.limit if utterance.cache is None else self.trace.window
                self.rings.append(min(self.trace.window, limit))
            try:
                for code in self.system.codes(utterance, self.trace, on_step):
                    self._take(utterance.sound.push(code))
                    yield
            finally:  # where it is cut short as well: what was made is heard
                self._take(utterance.sound.finish())
            yield

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache after the last step."""
        return self.trace.steps[-1].cache_bytes if self.trace.steps else 0

    @property
    def peak_bytes(self) -> int:
        """The most bytes of the cache so far."""
        return max(self.trace.cache_bytes, default=0)

    @property
    def sound_seconds(self) -> float:
        """Length of the sound so far."""
        return self.samples / self.system.sample_rate

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Count the time within as this side's own."""
        self._turn = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - self._turn

    def _take(self, sound: Sound) -> None:
        if not len(sound):
            return
        self.samples += len(sound)
        ready = self.seconds + time.perf_counter() - self._turn
        self.trace.chunks.append(Chunk(ready, len(sound) / self.system.sample_rate))
        self.on_sound(sound)


def take_turns(
    sides: list[Side], stop: threading.Event, memory_limit: Callable[[list[Side]], float] = lambda sides: float("inf")
) -> None:
    """Decode all sides to their ends, one step each in turn.

    Parameters
    ----------
    stop
        Ends all of them at their next steps.
    memory_limit
        How many bytes a cache may take, given the sides as they are: one that takes more ends there.
    """
    running = {side.key: (side, side.steps(stop)) for side in sides}
    forwards = True
    while running:
        for side, steps in list(running.values()) if forwards else list(running.values())[::-1]:
            try:
                with side.turn():
                    next(steps)
            except StopIteration:
                side.ended = side.trace.end()
            except StoppedError:
                side.ended = "stopped"
            except InputError as problem:
                side.ended, side.failure = "failed", str(problem)
            except Exception as problem:  # one side's end must not cost the others theirs: memory, most of all
                logging.getLogger(__name__).exception("%s failed", side.label)
                side.ended, side.failure = "failed", f"an error in the server ({type(problem).__name__})"
            if not side.ended and stop.is_set():
                side.ended = "stopped"
            if not side.ended and side.cache_bytes > memory_limit(sides):
                side.ended = "memory"
            if side.ended:
                with side.turn():  # its last sound
                    steps.close()  # type: ignore[attr-defined]
                del running[side.key]
        forwards = not forwards


def _chain(first: Utterance, rest: Iterator[Utterance]) -> Iterator[Utterance]:
    yield first
    yield from rest


def _weight_bytes(model: Any) -> int:
    """Return the bytes of a decoder's parameters; 0 for a system that has no torch module."""
    if not hasattr(model, "parameters"):
        return 0
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
