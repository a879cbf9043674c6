"""The comparison with the original runs where its checkouts are; its table is printed at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wandlib.systems.cosyvoice2 import CosyVoice2System
from wandlib.systems.cosyvoice2.tiny import write_tiny

from . import upstream

ROWS: list[tuple[str, str, float]] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In continuous integration, which allows no skipped test, leave the comparison out where it cannot run."""
    if upstream.FOLDER is not None or os.environ.get("CI", "").lower() not in {"1", "true"}:
        return
    here = Path(__file__).parent
    without = [item for item in items if item.get_closest_marker("upstream") and item.path.is_relative_to(here)]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


@pytest.fixture
def report() -> Callable[[str, str, float], None]:
    """Add a line to the table: module, shapes, largest difference."""
    return lambda module, shapes, difference: ROWS.append((module, shapes, difference))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if ROWS:
        terminalreporter.section("CosyVoice 2 against the original, float32")
        terminalreporter.write_line("| module | shapes | max difference |")
        terminalreporter.write_line("|---|---|---|")
        for module, shapes, difference in ROWS:
            terminalreporter.write_line(f"| {module} | {shapes} | {difference:.1e} |")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in the published layout."""
    return write_tiny(tmp_path_factory.mktemp("cosyvoice2"))


@pytest.fixture(scope="session")
def tts(checkpoint: Path) -> CosyVoice2System:
    """The whole system on it."""
    return CosyVoice2System.load(checkpoint)


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s that can be a reference."""
    import numpy as np
    import soundfile

    path = tmp_path_factory.mktemp("reference") / "voice.wav"
    samples = 0.1 * np.random.default_rng(0).standard_normal(3 * 24_000)
    soundfile.write(path, samples.astype(np.float32), 24_000)
    return path
