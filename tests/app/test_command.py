"""``python -m app``: its flags, its errors, and what it does not import for them."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_system import FakeSystem
from served_app import free_port

from app.__main__ import main, parse, systems
from wandlib.systems import InputError
from wandlib.systems.registry import SYSTEMS

ROOT = Path(__file__).parents[2]


def test_flags_and_errors_need_no_model() -> None:
    """Errors of the command line come at once: what takes seconds to import is imported later."""
    code = "import sys, app.__main__; print([name for name in ('torch', 'gradio', 'wandlib') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_unknown_system_is_refused_before_anything_is_imported() -> None:
    assert list(systems()) == list(SYSTEMS)
    code = (
        "import sys; sys.argv[1:] = ['--system', 'nobody']\n"
        "from app.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print([name for name in ('torch', 'gradio', 'wandlib') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "99999"], "a port is between 1 and 65535, not 99999"),
        (["--port", "-1"], "a port is between 1 and 65535, not -1"),
        (["--host", "::1"], "listens on IPv4 alone, not on ::1"),
        (["--allow-host", "voice example"], "'voice example' is no host's name"),
    ],
)
def test_flags_that_cannot_be_meant(
    flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["app", *flags])
    with pytest.raises(SystemExit):
        parse()
    assert message in capsys.readouterr().err


def test_flags_reach_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def load(name: str, folder: str | None, **options: Any) -> FakeSystem:
        asked.append((name, folder, options))
        raise InputError("no further")

    monkeypatch.setattr("wandlib.systems.load_system", load)
    flags = ["--system", "sparktts", "--checkpoint", str(tmp_path), "--device", "cuda"]
    monkeypatch.setattr("sys.argv", ["app", "--port", str(free_port()), *flags])
    with pytest.raises(SystemExit, match="cannot load sparktts: no further"):
        main()
    assert asked == [("sparktts", str(tmp_path), {"device": "cuda"})]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--system", "nobody"], "cannot load nobody: there is mini, cosyvoice2"),
        (["--device", "gramophone"], "cannot load mini: no device 'gramophone'"),
        (["--system", "sparktts"], "comes without weights"),
        (["--checkpoint", "/nowhere"], "cannot load mini: there is no folder '/nowhere'"),
    ],
)
def test_system_that_cannot_be_loaded(flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["app", "--port", str(free_port()), *flags])
    with pytest.raises(SystemExit, match=message):
        main()


def test_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr("sys.argv", ["app", "--port", str(port)])
        with pytest.raises(SystemExit, match=rf"cannot listen on 127.0.0.1:{port}: .* Try another one with --port"):
            main()


@pytest.mark.parametrize("where", ["load", "warm up", "build"])
def test_other_trouble_is_not_blamed_on_the_port(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError("the disk is full")

    patched = {
        "load": "wandlib.systems.load_system",
        "warm up": "fake_system.FakeSystem.synthesize",
        "build": "app.page.build_app",
    }
    monkeypatch.setattr("wandlib.systems.load_system", lambda *arguments, **options: FakeSystem())
    monkeypatch.setattr(patched[where], fail)
    monkeypatch.setattr("sys.argv", ["app", "--port", str(free_port())])
    expected = OSError if where == "build" else SystemExit
    with pytest.raises(expected, match="the disk is full") as caught:
        main()
    assert "cannot listen" not in str(caught.value)


def test_defaults_are_this_machine_and_the_embedded_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["app"])
    found = parse()
    assert (found.host, found.port, found.system, found.checkpoint) == ("127.0.0.1", 7860, "mini", None)
