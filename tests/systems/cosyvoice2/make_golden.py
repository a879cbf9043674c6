"""Write golden.npz: what the original makes of the cases.

``WANDLIB_UPSTREAM=folder PYTHONPATH=tests/systems:. python -m cosyvoice2.make_golden``, where
``test_upstream.py`` passes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from . import cases, upstream

PATH = Path(__file__).with_name("golden.npz")


def shown(case: cases.Case, output: torch.Tensor) -> NDArray[np.float32]:
    """The values that are kept."""
    return output.flatten()[:: case.shown].numpy()


if __name__ == "__main__":
    np.savez_compressed(PATH, **{case.name: shown(case, upstream.output(case)) for case in cases.CASES})
