"""Two processes with half the batch each train like one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from train_in_processes import run

# "multi_gpu" is how the launcher names several processes on one machine; the script itself asks for the CPU.
LAUNCH = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0"
PLAIN = "--mixed_precision no --dynamo_backend no"


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    """Through ``accelerate launch`` and gloo; utterances differ in length, so the halves count differently much."""
    options: dict[str, Any] = {"per_device_train_batch_size": 4, "ddp_backend": "gloo"}
    tests = Path(__file__).parents[1]
    script = [str(tests / "helpers" / "train_in_processes.py"), str(tmp_path), json.dumps(options)]
    paths = {"PYTHONPATH": os.pathsep.join([str(tests / "helpers"), str(tests.parent)]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", *LAUNCH.split(), *PLAIN.split(), *script], env=os.environ | paths
    ) as launched:
        try:
            assert launched.wait(timeout=280) == 0
        finally:
            launched.terminate()  # on which the launcher ends its processes
    two = json.loads((tmp_path / "log.json").read_text(encoding="utf-8"))
    one = run(tmp_path / "one", per_device_train_batch_size=8)
    for name in ("loss", "ce", "kl", "agreement", "grad_norm", "window", "tau"):
        assert [line[name] for line in two[:4]] == pytest.approx([line[name] for line in one[:4]], rel=1e-4), name
    for name in ("eval_loss", "eval_ce", "eval_kl", "eval_agreement"):
        assert two[-1][name] == pytest.approx(one[-1][name], rel=1e-4)
