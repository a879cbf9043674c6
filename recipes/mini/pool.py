"""Run a function over many jobs, in some processes, with a progress bar."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class Workers(ProcessPoolExecutor):
    """Processes that end when this one does, also where it is killed, and when the block ends with an error.

    multiprocessing's Pool would put another process in the place of one that is killed, and wait for its answer for
    ever.
    """

    def __init__(self, count: int) -> None:
        context = get_context("spawn")
        watched, self._held = context.Pipe(duplex=False)
        super().__init__(count, context, _end_with_parent, (watched,))

    def imap(self, function: Callable[[Job], Answer], jobs: Sequence[Job], chunksize: int = 1) -> Iterator[Answer]:
        """Yield the answers in order.

        Raises
        ------
        RuntimeError
            Where a process was killed.
        """
        try:
            yield from self.map(function, jobs, chunksize=chunksize)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process was killed, most likely because memory ran out: run this again with fewer processes "
                "(--workers or --processes); it goes on from the files that are finished"
            ) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is not None:
            self._held.close()  # nobody waits for jobs whose answers nobody takes
        self.shutdown(cancel_futures=True)
        self._held.close()


def _end_with_parent(watched: Connection) -> None:
    """Watch the parent; a worker would go on with its job, unheard, for as long as that takes."""

    def watch() -> None:
        watched.poll(None)  # until the other end is closed, by the parent or with it
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def each(function: Callable[[Job], Answer], jobs: Sequence[Job], workers: int, label: str) -> Iterator[Answer]:
    """Yield the answers in order; one worker is this process itself."""
    progress = tqdm(total=len(jobs), desc=label)
    if workers == 1 or not jobs:
        for job in jobs:
            yield function(job)
            progress.update()
    else:
        with Workers(workers) as pool:
            for answer in pool.imap(function, jobs):
                yield answer
                progress.update()
    progress.close()


def each_alone(function: Callable[[Job], Answer], jobs: Sequence[Job], workers: int, label: str) -> Iterator[Answer]:
    """Yield the answers in order; each job has a process of its own, whose memory is free when it is done.

    Where one is killed, those beside it finish first.
    """
    # ProcessPoolExecutor's max_tasks_per_child can wait for ever, in Python 3.11 to 3.14 (cpython issue 115634).
    with ThreadPoolExecutor(workers) as threads:
        yield from tqdm(threads.map(partial(_alone, function), jobs), total=len(jobs), desc=label)


def _alone(function: Callable[[Job], Answer], job: Job) -> Answer:
    with Workers(1) as worker:
        (answer,) = worker.imap(function, [job])
    return answer
