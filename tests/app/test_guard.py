"""Which host names the server answers to, and what it lets nobody embed or read."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest
from fake_system import FakeSystem
from served_app import Served

from app.guard import Guard
from app.hosts import own_hosts
from app.waiting import waiting_page


@pytest.fixture(scope="module")
def app() -> Iterator[Served]:
    served = Served(FakeSystem())
    yield served
    served.page.close()


@pytest.mark.parametrize("path", ["", "config", "wand/static/player.js", "gradio_api/info"])
def test_foreign_name_is_refused(app: Served, path: str) -> None:
    """A web page that points a name of its own at this machine (DNS rebinding) comes with that name."""
    assert httpx.get(app.address + path).status_code == 200
    for name in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        assert httpx.get(app.address + path, headers={"host": name}).status_code == 421


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("http://203.0.113.7", 403),
        ("null", 403),
        ("http://[evil", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("http://localhost:3000", 200),
        (None, 200),
    ],
)
def test_other_pages_send_nothing(app: Served, origin: str | None, status: int) -> None:
    """A form of any web page can send a file to any address that its visitor reaches."""
    headers = {} if origin is None else {"origin": origin, "sec-fetch-site": "cross-site"}
    answer = httpx.post(f"{app.address}gradio_api/upload", files={"files": ("a.wav", b"0" * 1000)}, headers=headers)
    assert answer.status_code == status
    assert httpx.get(app.address, headers=headers).status_code == 200


def test_own_page_sends(app: Served) -> None:
    headers = {"origin": app.address.rstrip("/")}
    assert httpx.post(f"{app.address}gradio_api/upload", files={"files": ("a.wav", b"0")}, headers=headers).is_success
    behind_a_proxy = Guard(httpx.get, own_hosts(["voice.example.org"]))  # type: ignore[arg-type]
    assert behind_a_proxy.is_own("https://voice.example.org", "127.0.0.1:7860")


@pytest.mark.parametrize(
    "path",
    [
        "openapi.json",
        "gradio_api/openapi.json",
        "monitoring",
        "gradio_api/monitoring",
        "monitoring/summary",
        "gradio_api/monitoring/summary",
        "docs",
        "redoc",
        "gradio_api/file=https://example.org/sound.wav",
        "gradio_api/file=HTTP%3A//example.org/sound.wav",
        "gradio_api/proxy=https://example.org/",
        "gradio_api/file/https://example.org/sound.wav",
        "gradio_api/file/https%3A%2F%2Fexample.org/sound.wav",
        "gradio_api/file/etc/passwd",
        "gradio_api/stream/../file/https://example.org/sound.wav",
        "gradio_api/deep_link",
        "gradio_api/runs",
        "gradio_api/queue/status",
        "gradio_api/profiling/traces",
        "gradio_api/vibe-code",
        "gradio_api/",
    ],
)
def test_page_for_nobody_is_hidden(app: Served, path: str) -> None:
    assert httpx.get(app.address + path).status_code == 404


@pytest.mark.parametrize("path", ["component_server", "process_recording", "api/compare"])
def test_what_the_page_does_not_use_takes_nothing(app: Served, path: str) -> None:
    answer = httpx.post(f"{app.address}gradio_api/{path}", files={"files": ("a.wav", b"0")})
    assert (answer.status_code, answer.text) == (404, "not found")


def test_a_request_is_limited_as_a_whole(app: Served) -> None:
    """gradio limits each file of up to a thousand, and no field and no JSON."""
    upload, join = f"{app.address}gradio_api/upload", f"{app.address}gradio_api/queue/join"
    file = b"0" * 8_000_000
    assert httpx.post(upload, files=[("files", ("a.wav", file))] * 2).is_success
    assert httpx.post(upload, files=[("files", ("a.wav", file))] * 3).status_code == 413
    assert httpx.post(join, json={"data": ["x" * 1_000_000]}).status_code == 413
    assert httpx.post(join, content=iter([b'{"data": ["', *[b"x" * 10_000] * 200]), timeout=30).status_code == 413
    boundary = {"content-type": "multipart/form-data; boundary=b"}
    field = b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n'
    endless = iter([field, *[b"x" * 1_000_000] * 22])
    assert httpx.post(upload, content=endless, headers=boundary, timeout=30).status_code == 413


def test_no_other_page_may_frame_it(app: Served) -> None:
    headers = httpx.get(app.address).headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1",
        "127.0.0.1:7860",
        "[::1]",
        "[::1]:7860",
        "10.1.2.3:1",
        "voice.example.org:443",
        "localhost.",
        socket.gethostname(),
    ],
)
def test_own_names(host: str) -> None:
    assert Guard(httpx.get, own_hosts(["voice.example.org"])).knows(host)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["voice.example.org:8443", "https://Voice.example.org/", "voice.example.org."])
def test_a_further_name_may_come_as_an_address(given: str) -> None:
    assert Guard(httpx.get, own_hosts([given])).knows("voice.example.org:443")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["", "voice example", "https://", "voice.example.org/app", "[::1"])
def test_what_is_no_name_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="is no host's name"):
        own_hosts([given])


@pytest.mark.parametrize("host", ["", "evil.example", "localhost:evil", "[::1].evil.example", "::1.evil", "127.0.0.1x"])
def test_other_names(host: str) -> None:
    assert not Guard(httpx.get, own_hosts()).knows(host)  # type: ignore[arg-type]


def test_space_shows_it_in_its_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_HOST", "somebody-wand.hf.space")
    guard = Guard(httpx.get, own_hosts())  # type: ignore[arg-type]
    assert guard.knows("somebody-wand.hf.space")
    assert (b"content-security-policy", b"frame-ancestors https://huggingface.co https://*.hf.space") in guard.headers
    assert b"x-frame-options" not in dict(guard.headers)


@pytest.mark.parametrize("space", ["", "somebody-wand.hf.space"])
def test_page_that_waits_may_be_framed_by_the_same_pages(monkeypatch: pytest.MonkeyPatch, space: str) -> None:
    monkeypatch.setenv("SPACE_HOST", space)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with waiting_page("127.0.0.1", port):
        waits = httpx.get(f"http://127.0.0.1:{port}/").headers
    named = {name: waits.get(name) for name in ("content-security-policy", "x-frame-options")}
    guard = {name.decode(): value.decode() for name, value in Guard(httpx.get, set()).headers}  # type: ignore[arg-type]
    assert named == {name: guard.get(name) for name in named}
