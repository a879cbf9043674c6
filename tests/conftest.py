"""What holds in every test: a seed, no network, and in continuous integration no test that is skipped."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

# From here on every function of wandlib checks the types and shapes of what it takes and gives.
install_import_hook("wandlib", "runtime_types.check")

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

CONTINUOUS_INTEGRATION = os.environ.get("CI", "").lower() in {"1", "true"}


class NetworkAccessError(AssertionError):
    """A test reached for another machine."""


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same numbers."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  libraries draw from the global generator
    torch.manual_seed(0)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A small analyzed corpus for the recipe."""
    import tiny_corpus

    return tiny_corpus.write(tmp_path / "corpus")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Generator[None]:
    """Sockets of this process reach this machine only."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def check(sock: socket.socket, address: Any) -> None:
        if sock.family == socket.AF_UNIX or address[0] in {"127.0.0.1", "::1", "localhost"}:
            return
        raise NetworkAccessError(f"a test must not connect to {address}")

    def guarded(sock: socket.socket, address: Any) -> None:
        check(sock, address)
        connect(sock, address)

    def guarded_ex(sock: socket.socket, address: Any) -> int:
        check(sock, address)
        return connect_ex(sock, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        patch.setattr(socket.socket, "connect_ex", guarded_ex)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, visibly as "deselected", GPU tests where there is no GPU, and in CI comparisons with published code.

    Elsewhere the latter are skipped, and say what they need.
    """
    left_out = set()
    if not torch.cuda.is_available():
        left_out.add("gpu")
    if CONTINUOUS_INTEGRATION and not os.environ.get("WANDLIB_UPSTREAM"):
        left_out.add("upstream")
    without = [item for item in items if any(item.get_closest_marker(name) for name in left_out)]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in set(without)]


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if CONTINUOUS_INTEGRATION and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which continuous integration does not allow: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In continuous integration a skipped test is a failure."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In continuous integration a skipped module is a failure."""
    report = yield
    _refuse_skip(report)
    return report
