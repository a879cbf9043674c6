"""One run at a time, whoever asks: the others wait in order, and know how many are before them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from app.turns import Side, take_turns

SECONDS_BETWEEN_SNAPSHOTS = 0.25
WAITING_LIMIT = 16
"""Requests that may wait; one is served at a time, so that the times of its steps mean something."""


class BusyError(Exception):
    """The queue is full; the message is for the visitor."""


@dataclass(frozen=True)
class Snapshot:
    """State of a run at one moment: how many are before it, or its sides, which grow on while they are read."""

    before: int
    sides: list[Side]
    finished: bool = False


class Desk:
    """Runs requests one after the other, all in one thread: a second one's idle helpers would slow down the first."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wand-decode")
        self._queue: list[threading.Event] = []
        self._changed = threading.Condition()
        self._closed = False

    def run(
        self,
        prepare: Callable[[], list[Side]],
        stop: threading.Event,
        memory_limit: Callable[[list[Side]], float] = lambda sides: float("inf"),
    ) -> Iterator[Snapshot]:
        """Wait for the turn, prepare the sides, decode them; yield a few snapshots a second, the last one finished.

        Closing the iterator or setting ``stop`` ends the decode at its next step.

        Raises
        ------
        BusyError
            If too many wait already.
        Exception
            Whatever ``prepare`` raised; then no side has begun.
        """
        self._enter(stop)
        sides: list[Side] = []

        def work() -> None:
            prepared = prepare()
            sides.extend(prepared)
            take_turns(prepared, stop, memory_limit)

        try:
            while (before := self._before(stop)) and not stop.is_set():
                yield Snapshot(before, [])
                with self._changed:
                    self._changed.wait(SECONDS_BETWEEN_SNAPSHOTS)
            if stop.is_set():
                return
            job = self._thread.submit(work)
            try:
                while not _wait(job, SECONDS_BETWEEN_SNAPSHOTS):
                    yield Snapshot(0, list(sides))
                job.result()
                yield Snapshot(0, list(sides), finished=True)
            finally:
                stop.set()
                job.cancel()
                _wait(job, None)
                del job  # it holds its exception, whose traceback holds this frame: together they would stay in memory
        finally:
            self._leave(stop)

    def close(self) -> None:
        """End what runs and what waits."""
        with self._changed:
            self._closed = True
            for stop in self._queue:
                stop.set()
            self._changed.notify_all()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _enter(self, ticket: threading.Event) -> None:
        with self._changed:
            if self._closed or len(self._queue) > WAITING_LIMIT:
                raise BusyError(f"{WAITING_LIMIT} requests are waiting already: try again in a minute")
            self._queue.append(ticket)

    def _leave(self, ticket: threading.Event) -> None:
        with self._changed:
            self._queue.remove(ticket)
            self._changed.notify_all()

    def _before(self, ticket: threading.Event) -> int:
        with self._changed:
            return self._queue.index(ticket)


def _wait(job: Future[None], seconds: float | None) -> bool:
    """Wait for a job, without raising what it raised; tell whether it is done."""
    return bool(wait([job], seconds).done)
