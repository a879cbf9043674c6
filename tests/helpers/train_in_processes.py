"""Four steps of training; the first process writes the log. Run by test_training_processes.py, once in each process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tiny_training import build_trainer


def run(folder: Path, **options: Any) -> list[dict[str, float]]:
    """The log of a short run."""
    torch.set_num_threads(1)
    trainer = build_trainer(folder, max_steps=4, learning_rate=1e-2, warmup_steps=0, **options)
    trainer.train()
    trainer.evaluate(trainer.train_dataset)
    return trainer.state.log_history


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    log = run(folder, **json.loads(sys.argv[2]))
    if torch.distributed.get_rank() == 0:
        (folder / "log.json").write_text(json.dumps(log), encoding="utf-8")
    torch.distributed.destroy_process_group()
