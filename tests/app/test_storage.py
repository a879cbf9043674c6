"""What visitors leave is gone when the app ends, however it ends; and what the server says while it starts."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from served_app import free_port

from app.page import CACHE_SECONDS, SECONDS_BETWEEN_LOOKS
from app.sounds import KEPT_SECONDS
from app.storage import LOCK, PREFIX, UPLOADS, drop_broken_uploads, private_folder, sweep

ROOT = Path(__file__).parents[2]
SERVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from fake_system import FakeSystem
import wandlib.systems
wandlib.systems.load_system = lambda name, folder, device, **options: FakeSystem()
sys.argv = ["app", "--port", sys.argv[1]]
from app.__main__ import main
main()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def folders(temporary: Path) -> list[Path]:
    return list(temporary.glob(f"{PREFIX}*"))


class TestPrivateFolder:
    def test_is_private_and_emptied(self, temporary: Path) -> None:
        with private_folder() as folder:
            assert folder.stat().st_mode & 0o077 == 0
            assert Path(os.environ["GRADIO_TEMP_DIR"]).parent == folder
            (folder / "gradio").mkdir()
            (folder / "gradio" / "voice.wav").write_bytes(b"a voice")
        assert not list(folder.rglob("*.wav"))
        assert "GRADIO_TEMP_DIR" not in os.environ

    def test_orphan_is_swept_and_a_running_one_is_not(self, temporary: Path) -> None:
        orphan = temporary / f"{PREFIX}orphan"
        orphan.mkdir()
        (orphan / LOCK).touch()
        (orphan / "voice.wav").write_bytes(b"a voice")
        with private_folder() as running:
            assert not orphan.exists()
            assert sweep() == []
            assert running.exists()

    def test_hangup_cleans_up(self, temporary: Path, request: pytest.FixtureRequest) -> None:
        """As the end of a terminal does; the tests themselves may run under nohup."""
        request.addfinalizer(functools.partial(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP)))
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with ExitStack() as app:
            recordings = app.enter_context(private_folder()) / "gradio"
            recordings.mkdir()
            (recordings / "voice.wav").write_bytes(b"a voice")
            with pytest.raises(SystemExit):
                signal.raise_signal(signal.SIGHUP)
        assert not list(temporary.rglob("voice.wav"))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL

    def test_hangup_that_is_ignored_stays_ignored(self, temporary: Path) -> None:
        """As under nohup."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with private_folder():
                signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_link_is_left_alone(self, temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        target = tmp_path_factory.mktemp("elsewhere")
        (target / "kept").touch()
        (temporary / f"{PREFIX}link").symlink_to(target)
        sweep()
        assert (target / "kept").exists()


def test_nothing_stays_for_more_than_an_hour() -> None:
    assert sum(CACHE_SECONDS) <= 3600
    assert KEPT_SECONDS + SECONDS_BETWEEN_LOOKS <= 3600


@pytest.mark.slow
class TestProcess:
    """A whole app, in a process of its own."""

    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_signal_cleans_up(self, temporary: Path, how: signal.Signals) -> None:
        with served(temporary) as (process, address):
            upload(address)
            assert list(temporary.rglob("voice.wav"))
            process.send_signal(how)
            assert process.wait(90) == 0
        assert folders(temporary) == []
        assert "Traceback" not in (temporary / "log").read_text()

    def test_next_start_cleans_up_after_a_kill(self, temporary: Path) -> None:
        with served(temporary) as (process, address):
            upload(address)
            process.kill()
            process.wait(20)
        assert list(temporary.rglob("voice.wav"))
        assert len(sweep()) == 1
        assert not list(temporary.rglob("voice.wav"))

    def test_head_of_the_page_comes_before_the_voice(self, temporary: Path) -> None:
        """Within 8 s on 2 cores: here nothing slow is imported until then, which holds under any load."""
        with served(temporary, wait_for="Page on") as (process, address):
            first = httpx.get(address, timeout=30)
            assert first.status_code == 200
            assert "The voice is loading" in first.text
            assert "wand-player" in first.text
            assert httpx.get(f"{address}wand/precomputed/window.ogg").content[:4] == b"OggS"
            assert httpx.get(f"{address}wand/static/../page.py").status_code != 200
            deadline = time.monotonic() + 120
            while asked(f"{address}wand/ready") != "ready":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert "The voice is loading" not in httpx.get(address).text
            process.terminate()
            assert process.wait(90) == 0


class served:  # noqa: N801  used like a function
    """Start an app in a process; end it with the block."""

    def __init__(self, temporary: Path, wait_for: str = "Ready") -> None:
        self.temporary, self.wait_for = temporary, wait_for

    def __enter__(self) -> tuple[subprocess.Popen[str], str]:
        port = free_port()
        environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'helpers'}",
        }
        self.log = (self.temporary / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(port)],
            env=environment,
            cwd=ROOT,
            stdout=self.log,
            stderr=self.log,
            text=True,
        )
        deadline = time.monotonic() + 200
        while self.wait_for not in (self.temporary / "log").read_text():
            assert self.process.poll() is None, (self.temporary / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return self.process, f"http://127.0.0.1:{port}/"

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
        self.log.close()


def asked(address: str) -> str:
    """What is answered; "" in the moment in which the page takes the port over."""
    try:
        return httpx.get(address).text
    except httpx.TransportError:
        return ""


def upload(address: str) -> None:
    httpx.post(f"{address}gradio_api/upload", files={"files": ("voice.wav", b"0" * 1000)}).raise_for_status()


def test_an_upload_that_broke_off_is_removed(tmp_path: Path) -> None:
    """What arrived whole lies in a folder of its own, which gradio looks after."""
    uploads = tmp_path / UPLOADS
    drop_broken_uploads(tmp_path, 60)  # nothing was uploaded yet
    for name, age in {"tmpold": 100, "tmpnew": 10, "whole/voice.wav": 100}.items():
        path = uploads / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0")
        os.utime(path, (time.time() - age,) * 2)
    drop_broken_uploads(tmp_path, 60)
    assert sorted(path.name for path in uploads.rglob("*") if path.is_file()) == ["tmpnew", "voice.wav"]
