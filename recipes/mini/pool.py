"""Run a function over many jobs, in some processes, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def each(function: Callable[[Job], Answer], jobs: Sequence[Job], workers: int, label: str) -> Iterator[Answer]:
    """Yield the answers in order; one worker is this process itself."""
    progress = tqdm(total=len(jobs), desc=label)
    if workers == 1 or not jobs:
        for job in jobs:
            yield function(job)
            progress.update()
    else:
        with get_context("spawn").Pool(workers) as pool:
            for answer in pool.imap(function, jobs):
                yield answer
                progress.update()
    progress.close()
