"""One sentence spoken twice, in a thread of its own, watched from outside while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wandlib.systems.base import Attention, Speech, SpeechSystem, Step

SECONDS_BETWEEN_LOOKS = 0.25


@dataclass(frozen=True)
class Request:
    """What to say, and how. ``reference`` is a built-in speaker's name or the path of an uploaded recording."""

    text: str
    reference: str | Path | None
    window: int
    seed: int
    temperature: float | None


@dataclass
class Side:
    """One of the two utterances: its steps so far, and its speech once it is complete."""

    attention: Attention
    steps: list[Step] = field(default_factory=list)
    speech: Speech | None = None


@dataclass(frozen=True)
class Look:
    """The state of both sides at one moment."""

    full: Side
    window: Side
    finished: bool
    stopped: bool


class Comparison:
    """Speaks requests with full attention, then with the window; one at a time, so that the times are fair."""

    def __init__(self, system: SpeechSystem) -> None:
        self.system = system
        self._turn = threading.Lock()

    def watch(self, request: Request, stop: threading.Event) -> Iterator[Look]:
        """Start, and yield a look a few times per second until both sides are complete or ``stop`` is set.

        Closing the iterator stops the thread too. It ends at its next decode step.

        Raises
        ------
        Exception
            Whatever the system raised, e.g. :class:`wandlib.systems.base.InputError`.
        """
        full, window = Side("full"), Side("window")
        failures: list[Exception] = []

        def work() -> None:
            try:
                with self._turn:
                    self._speak(request, full, stop)
                    self._speak(request, window, stop)
            except _StoppedError:
                pass
            except Exception as failure:  # handed to the watching thread, which raises it
                failures.append(failure)

        worker = threading.Thread(target=work, name="wand-comparison", daemon=True)
        worker.start()
        try:
            while worker.is_alive():
                worker.join(SECONDS_BETWEEN_LOOKS)
                if worker.is_alive():
                    yield Look(full, window, finished=False, stopped=False)
            if failures:
                raise failures[0]
            yield Look(full, window, finished=True, stopped=window.speech is None)
        finally:
            stop.set()

    def _speak(self, request: Request, side: Side, stop: threading.Event) -> None:
        def on_step(step: Step) -> None:
            if stop.is_set():
                raise _StoppedError
            side.steps.append(step)

        if stop.is_set():
            raise _StoppedError
        side.speech = self.system.synthesize(
            request.text,
            request.reference,
            side.attention,
            window=request.window if side.attention == "window" else None,
            seed=request.seed,
            temperature=request.temperature,
            on_step=on_step,
        )


class _StoppedError(Exception):
    """Leaves a synthesis that nobody waits for any longer."""
