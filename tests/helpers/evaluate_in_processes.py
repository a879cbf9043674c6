"""Evaluation of sets that processes cannot share evenly; the first process writes what it finds.

Run by test_processes.py, once in each process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tiny_training import build_trainer, utterances

from wandlib.distillation.losses import Losses
from wandlib.distillation.meter import Meter

SIZES = (1, 5, 6, 8)
"""Utterances; in batches of two, two processes repeat 1 (all that the second one gets), 3, 2 and none."""


def evaluations(folder: Path) -> list[dict[str, float]]:
    """The losses of each set."""
    torch.set_num_threads(1)
    gloo = {"ddp_backend": "gloo"} if torch.distributed.is_torchelastic_launched() else {}
    trainer = build_trainer(folder, per_device_eval_batch_size=2, **gloo)
    found = (trainer.evaluate(utterances(size)) for size in SIZES)
    return [{name: metrics[f"eval_{name}"] for name in ("loss", "ce", "kl", "agreement")} for metrics in found]


def lonely_means() -> dict[str, float]:
    """The means where only the second process has seen a batch."""
    meter = Meter()
    if torch.distributed.get_rank() == 1:
        meter.add(Losses(torch.tensor(0.5), {"ce": torch.tensor(6.0)}, 3))
    return meter.means()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = {"evaluations": evaluations(folder), "lonely": lonely_means()}
    if torch.distributed.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.destroy_process_group()
