"""A thousand requests, good and bad, four at a time: memory stays level, no traceback, nothing is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import soundfile
from fake_system import FakeSystem
from served_app import Served

from app.sounds import ALL_RUNS

MEGABYTE = 1e6
FIRST, ALL = 100, 1_000


@pytest.fixture
def served() -> Iterator[Served]:
    app = Served(FakeSystem(), untrained=FakeSystem)
    yield app
    app.page.close()


def mixed(number: int, voice: str, broken: str) -> tuple[str, list[Any], bool]:
    """A request: its address, its values, and whether it is a good one."""
    file = {"path": voice, "meta": {"_type": "gradio.FileData"}}
    requests: list[tuple[str, list[Any], bool]] = [
        ("compare", ["hello there", "low", None, 8, number, "default", True], True),
        ("windows", ["four more words here", "high", None, "student"], True),
        ("endless", ["on and on. " * 40, "low", None, 8, 1.5, "default"], True),
        ("compare", ["in another voice", "low", file, 4, 0, 0.7, False], True),
        ("compare", ["", "low", None, 8, 0, "default", False], False),
        ("compare", ["a" * 2000, "low", None, 8, 0, "default", False], False),
        ("compare", ["bad file", "low", {**file, "path": broken}, 8, 0, "default", False], False),
        ("compare", ["wrong kind", "low", None, "8", 0, "default", False], False),
        ("compare", ["half \ud83d", "low", None, 8, 0, "default", False], False),
        ("compare", ["no such file", "low", {**file, "path": "/etc/passwd"}, 8, 0, "default", False], False),
    ]
    return requests[number % len(requests)]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_memory_is_level(served: Served, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "voice.wav", 0.1 * np.ones(8000), 16_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF, or so it says")
    client = httpx.Client(timeout=300)

    def upload(name: str) -> str:
        content = (tmp_path / name).read_bytes()
        (path,) = client.post(f"{served.address}gradio_api/upload", files={"files": (name, content)}).json()
        return str(path)

    paths = upload("voice.wav"), upload("broken.wav")

    def ask(number: int) -> bool:
        name, data, good = mixed(number, *paths)
        call = f"{served.address}gradio_api/call/{name}"
        body = json.dumps({"data": data})
        event = client.post(call, content=body, headers={"content-type": "application/json"}).json()["event_id"]
        answer = client.get(f"{call}/{event}").text
        return ("event: complete" in answer) == good and ("event: error" in answer) != good

    process = psutil.Process()
    with ThreadPoolExecutor(4) as visitors:
        assert all(visitors.map(ask, range(FIRST)))
        before = process.memory_info().rss
        assert all(visitors.map(ask, range(FIRST, ALL)))
    more = process.memory_info().rss - before
    assert more <= 60 * MEGABYTE, f"{more / MEGABYTE:.0f} MB more"
    folder = served.page.stage.store.folder
    assert folder is not None
    assert len(list(folder.iterdir())) <= ALL_RUNS
    assert "Traceback" not in capfd.readouterr().err
    client.close()
