"""Jobs in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from recipes.mini.pool import each, each_alone

PROGRAM = """
import time
from recipes.mini.pool import each

if __name__ == "__main__":
    list(each(time.sleep, [600, 600], 2, "sleep"))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_come_in_order(workers: int) -> None:
    assert list(each(abs, [-3, 2, -1], workers, "numbers")) == [3, 2, 1]


def test_each_job_has_a_process_of_its_own() -> None:
    assert list(each_alone(abs, [-3, 2, -1], 2, "numbers")) == [3, 2, 1]
    asked = list(each_alone(eval, ["__import__('os').getpid()"] * 3, 2, "processes"))
    assert len({os.getpid(), *asked}) == 4


@pytest.mark.parametrize("run", [each, each_alone])
def test_a_worker_that_is_killed_ends_the_run(run: Callable[..., Iterator[None]]) -> None:
    """What was finished before is there; SIGCONT does nothing to a process that runs."""
    answers = run(signal.raise_signal, [signal.SIGCONT, signal.SIGKILL, signal.SIGCONT], 2, "signals")
    assert next(answers) is None
    with pytest.raises(RuntimeError, match=r"a process was killed.*memory.*fewer processes \(--workers"):
        list(answers)


def test_an_error_does_not_wait_for_the_other_jobs() -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="non-negative"):
        list(each(time.sleep, [-1, 600], 2, "sleep"))
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    run = subprocess.Popen([sys.executable, program], stderr=subprocess.DEVNULL, env={"PYTHONPATH": "."})
    parent, children, deadline = psutil.Process(run.pid), list[psutil.Process](), time.monotonic() + 60
    while len(children) < 3 and time.monotonic() < deadline:  # the resource tracker, and two workers
        children = parent.children()
        time.sleep(0.1)
    time.sleep(2)  # the workers import before they watch
    run.send_signal(how)
    run.wait(10)
    assert psutil.wait_procs(children, timeout=20)[1] == []
