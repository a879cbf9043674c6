"""Comparison with published code: where the checkouts are, and the table of differences at the end of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROWS: list[tuple[str, str, float]] = []
"""Module, shape of its output, largest difference."""

Compare = Callable[[str, Tensor, Tensor], None]


@pytest.fixture
def checkout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the checkout that the test names (``indirect``), on the import path."""
    root = os.environ.get("WANDLIB_UPSTREAM")
    if root is None:
        pytest.skip("set WANDLIB_UPSTREAM to the folder with checkouts of the published code")
    folder = Path(root) / request.param
    assert folder.is_dir(), f"no checkout {request.param} in {root}"
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def compare() -> Compare:
    """Assert that two results differ by at most 1e-4, and note by how much."""

    def check(name: str, ours: Tensor, theirs: Tensor) -> None:
        assert ours.shape == theirs.shape
        difference = float((ours.double() - theirs.double()).abs().max())
        ROWS.append((name, "x".join(map(str, ours.shape)), difference))
        tolerance = 0 if not ours.is_floating_point() else 1e-4
        assert difference <= tolerance, f"{name}: {difference}"

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if not ROWS:
        return
    terminalreporter.section(f"equality with published code, torch {torch.__version__}, Python {sys.version_info[:2]}")
    for name, shape, difference in ROWS:
        terminalreporter.write_line(f"| {name} | {shape} | {difference:.1e} |")
