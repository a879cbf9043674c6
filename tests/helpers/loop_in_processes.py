"""Train a small model by the recipe's loop: ``loop_in_processes.py FOLDER STEPS [LAST]``.

Each process has a part of the batch; before step LAST it ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from recipes.mini.loop import join, train

EXAMPLES = 8
"""In a step, of all processes together."""


def run(folder: Path, steps: int, last: int | None = None) -> nn.Linear:
    """Fit a line; a step's examples depend on its number alone."""
    world, rank = join()
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def step(number: int) -> dict[str, Tensor]:
        if number == last:
            sys.exit()  # what is not on disk is lost
        inputs = torch.randn(EXAMPLES, 3, generator=torch.Generator().manual_seed(number))
        mine = inputs.chunk(world)[rank]
        return {"loss": (model(mine).squeeze(1) - mine.sum(1)).square().mean()}

    train("line", folder, model, [optimizer], step, steps, warm_up=5, every=10)
    return model


if __name__ == "__main__":
    run(Path(sys.argv[1]), *map(int, sys.argv[2:]))
