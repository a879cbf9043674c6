"""Python in two processes by ``accelerate launch``, as on two machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# "multi_gpu" is how the launcher names several processes on one machine; what is launched asks for the CPU itself.
LAUNCH = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"
PLAIN = "--mixed_precision no --dynamo_backend no"
TESTS = Path(__file__).parents[1]


def launch(*arguments: str | int | Path, seconds: float = 280) -> None:
    """Run a script, or ``-m`` and a module, with its arguments; every process is to end with status 0."""
    paths = {"PYTHONPATH": os.pathsep.join([str(TESTS / "helpers"), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *LAUNCH.split(), *PLAIN.split(), *map(str, arguments)]
    with subprocess.Popen(command, env=os.environ | paths) as launched:
        try:
            assert launched.wait(timeout=seconds) == 0
        finally:
            launched.terminate()  # on which the launcher ends its processes
