"""Run a function over many jobs, in some processes, with a progress bar."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.pool import Pool
from typing import Any, TypeVar

from tqdm import tqdm

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def workers_of(count: int, **options: Any) -> Pool:
    """Return a pool of processes that end when this one does, also where it is killed."""
    return get_context("spawn").Pool(count, initializer=_end_with_parent, **options)


def _end_with_parent() -> None:
    """Watch the parent; a worker would go on with its job, unheard, for as long as that takes."""

    def watch() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
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
        with workers_of(workers) as pool:
            for answer in pool.imap(function, jobs):
                yield answer
                progress.update()
    progress.close()
