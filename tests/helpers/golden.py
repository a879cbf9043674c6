"""Golden values: outputs that were equal to the published code's when they were written.

``WANDLIB_WRITE_GOLDEN=1`` with the comparison against a checkout writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def check(file: Path, values: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    """Assert that ``values`` are those in ``file``, all of them."""
    golden = load_file(file)
    assert golden.keys() == values.keys()
    for name, value in values.items():
        difference = (value.double() - golden[name].double()).abs().max()
        assert difference <= (tolerance if value.is_floating_point() else 0), f"{name}: {difference}"


def write(file: Path, values: dict[str, Tensor]) -> None:
    """Write ``values``, from the published code, if asked to."""
    if os.environ.get("WANDLIB_WRITE_GOLDEN") == "1":
        save_file({name: value.contiguous() for name, value in values.items()}, file)
    check(file, values, tolerance=torch.finfo(torch.float16).eps / 10)
