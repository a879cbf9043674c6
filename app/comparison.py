"""One sentence synthesized twice in a background thread, and snapshots of it for the page."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wandlib.systems.base import Attention, Speech, SpeechSystem, Step

SECONDS_BETWEEN_SNAPSHOTS = 0.25


@dataclass(frozen=True)
class Request:
    """What to synthesize. ``reference`` is a built-in speaker's name or the path of an uploaded recording."""

    text: str
    reference: str | Path | None
    window: int
    seed: int
    temperature: float | None


@dataclass
class Run:
    """One of the two syntheses: its steps so far, and its speech once it is complete."""

    attention: Attention
    steps: list[Step] = field(default_factory=list)
    speech: Speech | None = None


@dataclass(frozen=True)
class Snapshot:
    """State of both runs at one moment."""

    full: Run
    window: Run
    finished: bool
    stopped: bool


class Comparison:
    """Synthesizes requests with full attention, then with the window; one at a time, so that the times are fair."""

    def __init__(self, system: SpeechSystem) -> None:
        self.system = system
        self._turn = threading.Lock()

    def stream(self, request: Request, stop: threading.Event) -> Iterator[Snapshot]:
        """Start both runs, and yield a few snapshots per second until both are complete or ``stop`` is set.

        Closing the iterator stops the thread too. It ends at its next decoding step.

        Raises
        ------
        Exception
            Whatever the system raised, e.g. :class:`wandlib.systems.base.InputError`.
        """
        full, window = Run("full"), Run("window")
        failures: list[Exception] = []

        def work() -> None:
            try:
                with self._turn:
                    self._synthesize(request, full, stop)
                    self._synthesize(request, window, stop)
            except _StoppedError:
                pass
            except Exception as failure:  # raised again by the thread that reads the snapshots
                failures.append(failure)

        worker = threading.Thread(target=work, name="wand-comparison", daemon=True)
        worker.start()
        try:
            while worker.is_alive():
                worker.join(SECONDS_BETWEEN_SNAPSHOTS)
                if worker.is_alive():
                    yield Snapshot(full, window, finished=False, stopped=False)
            if failures:
                raise failures[0]
            yield Snapshot(full, window, finished=True, stopped=window.speech is None)
        finally:
            stop.set()

    def _synthesize(self, request: Request, run: Run, stop: threading.Event) -> None:
        def on_step(step: Step) -> None:
            if stop.is_set():
                raise _StoppedError
            run.steps.append(step)

        if stop.is_set():
            raise _StoppedError
        run.speech = self.system.synthesize(
            request.text,
            request.reference,
            run.attention,
            window=request.window if run.attention == "window" else None,
            seed=request.seed,
            temperature=request.temperature,
            on_step=on_step,
        )


class _StoppedError(Exception):
    """Ends a synthesis whose result is no longer wanted."""
