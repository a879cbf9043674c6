"""Write golden.npz: what the original makes of the cases.

``WANDLIB_UPSTREAM=folder PYTHONPATH=tests/systems:. python -m cosyvoice2.make_golden``, where
``test_upstream.py`` passes.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from wandlib.systems.cosyvoice2.folder import BASE
from wandlib.systems.cosyvoice2.tiny import write_tiny

from . import cases, upstream

PATH = Path(__file__).with_name("golden.npz")
STREAMED = 11
"""Every so many samples of the streamed sound are kept."""


def keep(output: torch.Tensor, every: int) -> NDArray[np.float32]:
    """Every so many values of an output."""
    return output.flatten()[::every].numpy()


if __name__ == "__main__":
    golden = {case.name: keep(upstream.output(case), case.shown) for case in cases.CASES}
    with TemporaryDirectory() as folder:
        base = write_tiny(folder) / BASE
        for version in (2, 3):
            logits = upstream.language_model_logits(base, version)
            golden[f"language model, version {version}"] = keep(logits, 1)
    golden["codes to sound, streamed"] = keep(upstream.streamed(), STREAMED)
    np.savez_compressed(PATH, **golden)
