"""Two processes with half the batch each train like one, and evaluate like one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluate_in_processes import evaluations
from launching import TESTS, launch
from train_in_processes import run


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    """Through ``accelerate launch`` and gloo; utterances differ in length, so the halves count differently much."""
    options: dict[str, Any] = {"per_device_train_batch_size": 4, "ddp_backend": "gloo"}
    launch(TESTS / "helpers" / "train_in_processes.py", tmp_path, json.dumps(options))
    two = json.loads((tmp_path / "log.json").read_text(encoding="utf-8"))
    one = run(tmp_path / "one", per_device_train_batch_size=8)
    for name in ("loss", "ce", "kl", "agreement", "grad_norm", "window", "tau"):
        assert [line[name] for line in two[:4]] == pytest.approx([line[name] for line in one[:4]], rel=1e-4), name
    for name in ("eval_loss", "eval_ce", "eval_kl", "eval_agreement"):
        assert two[-1][name] == pytest.approx(one[-1][name], rel=1e-4)


@pytest.mark.slow
def test_two_processes_count_each_utterance_once(tmp_path: Path) -> None:
    """accelerate repeats some, so that the last batches are of one size; a process may have seen nothing else."""
    launch(TESTS / "helpers" / "evaluate_in_processes.py", tmp_path)
    two = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    for found, expected in zip(two["evaluations"], evaluations(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert two["lonely"] == {"ce": 2.0}
