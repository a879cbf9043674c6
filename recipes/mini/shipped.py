"""Start from the weights that are shipped, instead of hours of training: codec, vocoder and teacher as checkpoints.

    python -m recipes.mini corpus analysis shipped codes

leaves everything in place to train a student, or to go on with one part.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from recipes.mini.loop import save
from wandlib.systems.mini.system import ASSETS, MiniSystem


def run(folder: Path, source: Path = ASSETS) -> None:
    """Write ``codec.pt``, ``vocoder.pt`` and ``teacher.pt`` under ``folder``, where they are missing."""
    system = MiniSystem.load(source)
    parts: dict[str, nn.Module] = {
        "codec": system.codec,
        "vocoder": system.vocoder,
        "teacher": system.language_model,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in parts.items():
        path = folder / f"{name}.pt"
        if not path.exists():
            weights = {key: value.detach().clone() for key, value in module.named_parameters()}
            save(path, {"model": weights, "average": weights, "step": 0})
