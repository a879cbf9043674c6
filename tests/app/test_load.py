"""A thousand requests, good and bad, four at a time: memory stays level, no traceback, nothing is left."""

from __future__ import annotations

import json
import time
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
from gradio.route_utils import delete_files_created_by_app
from served_app import Served

from app.sounds import ALL_RUNS, KEPT_SECONDS

MEGABYTE = 1e6
FIRST, ALL = 100, 1_000


@pytest.fixture
def served() -> Iterator[Served]:
    app = Served(FakeSystem(), untrained=FakeSystem)
    yield app
    app.page.close()


def mixed(number: int, voice: str, broken: str) -> tuple[str, list[Any], bool | None]:
    """A request: its address, its values, and whether it is a good one; None: the answer is never fetched."""
    file = {"path": voice, "meta": {"_type": "gradio.FileData"}}
    requests: list[tuple[str, list[Any], bool | None]] = [
        ("compare", ["hello there", "low", None, 8, number, "default", True, ""], True),
        ("windows", ["four more words here", "high", None, "student", ""], True),
        ("endless", ["on and on. " * 40, "low", None, 8, 1.5, "default", ""], True),
        ("compare", ["in another voice", "low", file, 4, 0, 0.7, False, ""], True),
        ("compare", ["", "low", None, 8, 0, "default", False, ""], False),
        ("compare", ["a" * 2000, "low", None, 8, 0, "default", False, ""], False),
        ("compare", ["bad file", "low", {**file, "path": broken}, 8, 0, "default", False, ""], False),
        ("compare", ["wrong kind", "low", None, "8", 0, "default", False, ""], False),
        ("compare", ["half \ud83d", "low", None, 8, 0, "default", False, ""], False),
        ("endless", ["never read. " * 20, "low", None, 8, 1.5, "default", ""], None),
        ("compare", ["no such file", "low", {**file, "path": "/etc/passwd"}, 8, 0, "default", False, ""], False),
    ]
    return requests[number % len(requests)]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_memory_is_level(
    served: Served, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
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
        if good is None:
            return True
        answer = client.get(f"{call}/{event}").text
        return ("event: complete" in answer) == good and ("event: error" in answer) != good

    process = psutil.Process()
    with ThreadPoolExecutor(4) as visitors:
        assert all(visitors.map(ask, range(FIRST)))
        before = process.memory_info().rss
        assert all(visitors.map(ask, range(FIRST, ALL)))
    more = process.memory_info().rss - before
    assert more <= 60 * MEGABYTE, f"{more / MEGABYTE:.0f} MB more"
    assert "Traceback" not in capfd.readouterr().err
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    while served.page.stage.desk._queue:  # what nobody waits for
        time.sleep(0.1)
    store = served.page.stage.store
    assert store.folder is not None
    assert 0 < len(list(store.folder.iterdir())) <= ALL_RUNS
    for run in store._runs.values():
        run.born -= KEPT_SECONDS + 1
    store.expire()
    assert list(store.folder.iterdir()) == []
    assert all(Path(path).is_file() for path in paths)
    delete_files_created_by_app(served.page, age=0)
    assert not any(Path(path).exists() for path in paths)
    client.close()
