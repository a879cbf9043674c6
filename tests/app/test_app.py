"""The app over the wire: gradio's own client, and plain HTTP for what no honest client sends."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
import soundfile
from fake_system import BYTES_PER_TOKEN, CONDITIONING, CRASH, CRASH_DETAIL, STEPS_PER_WORD, FakeSystem
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from served_app import TEXT, Served, free_port, rows

from app.__main__ import main
from app.comparison import Comparison, Request
from app.curves import cache_curves, milliseconds_curves
from app.page import UPLOAD_LIMIT
from app.tabs.compare import TEXT_LIMIT
from wandlib.systems.base import InputError, Step

STEPS = STEPS_PER_WORD * 4


@pytest.fixture(scope="module")
def fast() -> Iterator[Served]:
    """A system that takes no time."""
    served = Served(FakeSystem())
    yield served
    served.page.close()


@pytest.fixture(scope="module")
def slow() -> Iterator[Served]:
    """A system that takes 5 ms a step."""
    served = Served(FakeSystem(seconds_per_step=0.005))
    yield served
    served.page.close()


def pitch(path: str) -> float:
    """The strongest frequency of a sound file, in Hz."""
    samples, rate = soundfile.read(path)
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[np.abs(np.fft.rfft(samples)).argmax()])


def comparison_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "wand-comparison"]


def assert_no_comparison_within(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while comparison_threads():
        assert time.monotonic() < deadline, "the thread that generates is still running"
        time.sleep(0.02)


class TestWhatIsHeard:
    def test_two_waveforms_differ_and_are_neither_cut_nor_scaled(self, fast: Served) -> None:
        full, window, *_ = fast.compare()
        for path, frequency in ((full, 220), (window, 270)):
            samples, rate = soundfile.read(path)
            assert rate == FakeSystem.sample_rate
            assert len(samples) == int(STEPS / FakeSystem.codes_per_second * rate)
            assert np.abs(samples).max() == pytest.approx(0.5, abs=1e-3)
            assert pitch(path) == pytest.approx(frequency, abs=1)

    def test_settings_reach_the_system(self, fast: Served) -> None:
        fast.system.requests.clear()
        fast.compare("two words", "high", window=5, seed=7, temperature=0.5)
        common = {"text": "two words", "reference": "high", "seed": 7, "temperature": 0.5}
        assert fast.system.requests == [
            {**common, "attention": "full", "window": None},
            {**common, "attention": "window", "window": 5},
        ]

    def test_upload_replaces_the_speaker(self, fast: Served, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "voice.wav", 0.1 * np.ones(8000), 16_000)
        full, *_ = fast.compare(recording=handle_file(tmp_path / "voice.wav"))
        assert pitch(full) == pytest.approx(330, abs=1)

    def test_two_requests_after_one_another_do_not_mix(self, fast: Served) -> None:
        first, *_, first_numbers, _ = fast.compare("one", seed=1)
        second, *_, second_numbers, _ = fast.compare("one two", seed=2)
        assert pitch(first) == pytest.approx(221, abs=2)
        assert pitch(second) == pytest.approx(222, abs=1)
        assert [row["steps"] for row in rows(first_numbers)] == [str(STEPS_PER_WORD)] * 2
        assert [row["steps"] for row in rows(second_numbers)] == [str(2 * STEPS_PER_WORD)] * 2


class TestWhatIsShown:
    def test_table(self, fast: Served) -> None:
        *_, numbers, status = fast.compare(window=8, seed=3)
        full, window = rows(numbers)
        assert (full["attention"], full["W"], full["seed"]) == ("full", "all", "3")
        assert (window["attention"], window["W"], window["seed"]) == ("window", "8", "3")
        assert full["cache at the end (kB)"] == f"{(CONDITIONING + STEPS) * BYTES_PER_TOKEN / 1e3:.1f}"
        assert window["cache at the end (kB)"] == f"{(CONDITIONING + 8) * BYTES_PER_TOKEN / 1e3:.1f}"
        assert full["speech (s)"] == window["speech (s)"] == f"{STEPS / FakeSystem.codes_per_second:.2f}"
        assert full["prompt (tokens)"] == str(CONDITIONING)
        assert window["median step (ms)"] == "2.00"
        assert full["ended by"] == "end token"
        assert float(full["real-time factor"]) < 1
        assert status == "Done: play both."

    def test_curves_grow_while_it_speaks(self, slow: Served) -> None:
        job = slow.submit(" ".join(["word"] * 12))  # 120 steps a run, 0.6 s or more each
        job.result(timeout=60)
        lengths = [len(polyline_points(snapshot[2])) for snapshot in job.outputs()]
        assert len(lengths) >= 5, "fewer than a few snapshots per second"
        assert lengths == sorted(lengths)
        assert 0 < lengths[1] < 120, "the first snapshot came when all was over"
        assert lengths[-1] == 240
        caches, times = job.outputs()[-1][2:4]
        assert "full attention" in caches
        assert "window, W = 8" in caches
        assert "ms" in times

    def test_first_player_holds_sound_before_the_second_run_is_complete(self, slow: Served) -> None:
        job = slow.submit(" ".join(["word"] * 12))
        job.result(timeout=60)
        paths = [[isinstance(player, str) for player in snapshot[:2]] for snapshot in job.outputs()]
        assert [True, False] in paths
        assert paths[-1] == [True, True]


class TestBadInput:
    def test_input_error_is_shown_as_text(self, fast: Served) -> None:
        with pytest.raises(AppError) as caught:
            fast.compare("  ")
        assert str(caught.value) == "the text is empty: write a sentence of up to &lt;1000&gt; characters"

    def test_other_error_stays_in_the_log(self, fast: Served, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(AppError) as caught:
            fast.compare(CRASH)
        assert str(caught.value).startswith("Something went wrong in the server")
        assert CRASH_DETAIL not in str(caught.value)
        assert CRASH_DETAIL in caplog.text

    @pytest.mark.parametrize(
        ("request_", "message"),
        [
            ({"text": "a" * (TEXT_LIMIT + 1)}, "the text has 1,001 characters; the limit here is 1,000: shorten it"),
            ({"text": None}, "the text is empty"),
            ({"speaker": "nobody"}, "not in the list of choices"),
            ({"speaker": ["low"]}, "unknown speaker"),
            ({"speaker": "/etc/passwd"}, "not in the list of choices"),
            ({"window": 1}, "less than minimum value 2"),
            ({"window": 9999}, "greater than maximum value 256"),
            ({"seed": None}, "the seed must be a whole number from 0 to"),
            ({"seed": -1}, "less than minimum value 0"),
            ({"temperature": 77}, "not in the list of choices"),
        ],
    )
    def test_setting_outside_its_limits(self, fast: Served, request_: dict[str, Any], message: str) -> None:
        fast.system.requests.clear()
        with pytest.raises(AppError) as caught:
            fast.compare(**request_)
        assert message in str(caught.value)
        assert "window" not in [asked["attention"] for asked in fast.system.requests]

    @pytest.mark.parametrize(
        ("content", "message"),
        [(b"RIFF, or so it says", "'voice.wav' is not sound"), (None, "the reference is silent")],
    )
    def test_recording_that_is_of_no_use(
        self, fast: Served, tmp_path: Path, content: bytes | None, message: str
    ) -> None:
        path = tmp_path / "voice.wav"
        if content is None:
            soundfile.write(path, np.zeros(8000), 16_000)
        else:
            path.write_bytes(content)
        with pytest.raises(AppError, match=message):
            fast.compare(recording=handle_file(path))

    def test_good_request_after_a_bad_one(self, fast: Served) -> None:
        with pytest.raises(AppError):
            fast.compare("")
        assert fast.compare()[-1] == "Done: play both."

    def test_upload_over_the_limit_is_refused(self, fast: Served) -> None:
        megabytes = int(UPLOAD_LIMIT.removesuffix("mb"))
        upload = f"{fast.address}gradio_api/upload"
        small = httpx.post(upload, files={"files": ("a.wav", b"0" * 1000)})
        large = httpx.post(upload, files={"files": ("a.wav", b"0" * (megabytes * 1024 * 1024 + 1))})
        assert small.status_code == 200
        assert large.status_code == 413


class TestPathsChooseNoFile:
    def test_uploaded_file_is_accepted(self, fast: Served, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "voice.wav", 0.1 * np.ones(8000), 16_000)
        content = (tmp_path / "voice.wav").read_bytes()
        (path,) = httpx.post(f"{fast.address}gradio_api/upload", files={"files": ("voice.wav", content)}).json()
        assert "event: complete" in ask_by_hand(fast, {"path": path})

    def test_path_on_the_server_is_refused(self, fast: Served, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "secret.wav", 0.1 * np.ones(8000), 16_000)
        (tmp_path / "folder").mkdir()
        for path in (tmp_path / "secret.wav", tmp_path / "folder" / ".." / "secret.wav"):
            assert_refused(fast, {"path": str(path)})

    def test_address_is_refused(self, fast: Served) -> None:
        for target in (f"{fast.address}config", "file:///etc/passwd"):
            assert_refused(fast, {"path": target})
            assert_refused(fast, {"path": "x", "url": target})

    def test_file_of_the_server_is_not_served(self, fast: Served) -> None:
        assert httpx.get(f"{fast.address}gradio_api/file=/etc/passwd").status_code == 403


def ask_by_hand(served: Served, recording: dict[str, str]) -> str:
    """Send a request with this recording as no client of gradio's would; return the server's answer."""
    call = f"{served.address}gradio_api/call/compare"
    file = {**recording, "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(call, json={"data": [TEXT, "low", file, 8, 0, "default"]}).raise_for_status()
    return httpx.get(f"{call}/{event.json()['event_id']}", timeout=30).text


def assert_refused(served: Served, recording: dict[str, str]) -> None:
    served.system.requests.clear()
    answer = ask_by_hand(served, recording)
    assert "event: error" in answer
    assert "event: complete" not in answer
    assert served.system.requests == []


class TestStopping:
    long_text = " ".join(["word"] * 100)  # 1,000 steps, 5 s a run

    def test_stop_button(self, slow: Served) -> None:
        job = slow.submit(self.long_text)
        wait_for_steps(job)
        slow.client.predict(api_name="/stop")
        assert_no_comparison_within(3.0)
        assert job.result(timeout=10)[-1] == "Stopped."

    def test_cancelled_job(self, slow: Served) -> None:
        job = slow.submit(self.long_text)
        wait_for_steps(job)
        job.cancel()
        assert_no_comparison_within(4.0)
        assert slow.compare("again")[-1] == "Done: play both."

    def test_client_that_goes_away(self, slow: Served) -> None:
        call = f"{slow.address}gradio_api/call/compare"
        event = httpx.post(call, json={"data": [self.long_text, "low", None, 8, 0, "default"]}).json()
        with httpx.stream("GET", f"{call}/{event['event_id']}") as answer:
            for line in answer.iter_lines():
                if line.startswith("data: ") and "polyline" in json.loads(line.removeprefix("data: "))[2]:
                    break
            assert comparison_threads()
        assert_no_comparison_within(4.0)

    def test_closing_the_iterator_ends_the_thread(self) -> None:
        snapshots = Comparison(FakeSystem(0.005)).stream(Request(self.long_text, "low", 8, 0, None), threading.Event())
        assert next(snapshots).full.steps
        snapshots.close()
        assert_no_comparison_within(3.0)

    def test_failure_reaches_the_watching_thread(self) -> None:
        snapshots = Comparison(FakeSystem()).stream(Request("", "low", 8, 0, None), threading.Event())
        with pytest.raises(InputError, match="empty"):
            list(snapshots)

    def test_one_at_a_time(self) -> None:
        system = FakeSystem(0.002)
        comparison = Comparison(system)
        request = Request("word " * 5, "low", 8, 0, None)
        threads = [
            threading.Thread(target=lambda: list(comparison.stream(request, threading.Event()))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [asked["attention"] for asked in system.requests] == ["full", "window"] * 3


def wait_for_steps(job: Any) -> None:
    deadline = time.monotonic() + 10
    while not any(": step " in snapshot[-1] for snapshot in job.outputs()):
        assert time.monotonic() < deadline, "no step was ever reported"
        time.sleep(0.02)


def polyline_points(svg: str) -> list[str]:
    return [point for line in svg.split('<polyline points="')[1:] for point in line.split('"')[0].split()]


class TestCurves:
    def test_points_are_to_scale(self) -> None:
        steps = [Step(index, 1.0, 1000 * (index + 1)) for index in range(100)]
        points = [tuple(map(float, point.split(","))) for point in polyline_points(cache_curves(steps, [], 8))]
        assert len(points) == 100
        slopes = {round((y - b) / (x - a), 2) for (a, b), (x, y) in zip(points[::30], points[30::30], strict=False)}
        assert len(slopes) == 1

    def test_long_curves_are_thinned(self) -> None:
        steps = [Step(index, 1.0, 1000) for index in range(20_000)]
        assert len(polyline_points(milliseconds_curves(steps, steps, 8))) <= 480

    def test_one_slow_step_does_not_flatten_the_rest(self) -> None:
        steps = [Step(index, 900.0 if index == 0 else 2.0, 1000) for index in range(200)]
        heights = {point.split(",")[1] for point in polyline_points(milliseconds_curves(steps, [], 8))[20:]}
        (height,) = heights
        assert float(height) < 150, "2 ms lies at the very bottom of the picture"

    @pytest.mark.parametrize("steps", [[], [Step(0, 0.0, 0)]])
    def test_nothing_yet(self, steps: list[Step]) -> None:
        assert cache_curves(steps, [], 8).startswith("<figure>")
        assert milliseconds_curves(steps, [], 8).startswith("<figure>")


class TestCommand:
    """``python -m app``."""

    @pytest.fixture(autouse=True)
    def system(self, monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
        system = FakeSystem()
        monkeypatch.setattr("wandlib.systems.load_system", lambda name, folder, device: system)
        return system

    def test_serves_this_machine_after_a_warm_up(
        self, system: FakeSystem, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        port = free_port()
        served: list[gr.Blocks] = []
        monkeypatch.setattr("sys.argv", ["app", "--port", str(port)])
        monkeypatch.setattr(gr.Blocks, "block_thread", lambda page: served.append(page))
        main()
        address = f"http://127.0.0.1:{port}/"
        assert httpx.get(address).status_code == 200
        assert address in capsys.readouterr().out
        assert [asked["attention"] for asked in system.requests] == ["full", "window"]
        assert not served[0].share
        served[0].close()

    @pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of gradio's search for a port
    def test_port_in_use_is_said_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            monkeypatch.setattr("sys.argv", ["app", "--port", str(port)])
            with pytest.raises(SystemExit, match=f"cannot listen on 127.0.0.1:{port}: .*--port"):
                main()


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--system", "nobody"], "no system named 'nobody'"), (["--device", "gramophone"], "no device 'gramophone'")],
)
def test_system_that_cannot_be_loaded(flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["app", *flags])
    with pytest.raises(SystemExit, match=f"cannot load .*{message}"):
        main()


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_system_without_built_in_speakers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the published ones are: the page opens, and asks for a recording."""
    monkeypatch.setattr(FakeSystem, "speakers", [])
    served = Served(FakeSystem())
    with pytest.raises(AppError, match="give a recording"):
        served.compare(speaker=None)
    soundfile.write(tmp_path / "voice.wav", 0.1 * np.ones(8000), 16_000)
    assert served.compare(speaker=None, recording=handle_file(tmp_path / "voice.wav"))[-1] == "Done: play both."
    served.page.close()


def test_page_asks_nothing_of_other_machines(fast: Served) -> None:
    page = httpx.get(fast.address).text
    for fetched in ("fonts.googleapis", "gstatic", "cdnjs", "google-analytics"):
        assert fetched not in page
    assert isinstance(fast.page, gr.Blocks)
    assert not fast.page.analytics_enabled
    assert not fast.page.share
