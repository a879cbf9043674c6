"""Jobs in several processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from recipes.mini.pool import each

PROGRAM = """
import time
from recipes.mini.pool import each

if __name__ == "__main__":
    list(each(time.sleep, [600, 600], 2, "sleep"))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_come_in_order(workers: int) -> None:
    assert list(each(abs, [-3, 2, -1], workers, "numbers")) == [3, 2, 1]


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
