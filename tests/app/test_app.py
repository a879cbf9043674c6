"""The app over the wire: gradio's own client, and plain HTTP for what no honest client sends."""

from __future__ import annotations

import csv
import html
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import gradio as gr
import httpx
import numpy as np
import pytest
import soundfile
from fake_system import BYTES_PER_TOKEN, CONDITIONING, CRASH, CRASH_DETAIL, STEPS_PER_WORD, FakeSystem
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from served_app import CURVES, HISTORY, NOTES, NUMBERS, PLAYER, RESULT, STATUS, TABLE, TEXT, Served

from app.blind import Ballot
from app.page import UPLOAD_LIMIT, choices
from app.request import CHAPTER_LIMIT, TEXT_LIMIT, from_link
from app.view import UNREAD

STEPS = STEPS_PER_WORD * 4


@pytest.fixture(scope="module")
def fast() -> Iterator[Served]:
    """A system that takes no time, with a student."""
    served = Served(FakeSystem(), untrained=FakeSystem)
    yield served
    served.page.close()


@pytest.fixture(scope="module")
def slow() -> Iterator[Served]:
    """A system that takes 5 ms a step."""
    served = Served(FakeSystem(seconds_per_step=0.005))
    yield served
    served.page.close()


def pitch(samples: Any, rate: int) -> float:
    """The strongest frequency of a sound, in Hz."""
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[np.abs(np.fft.rfft(samples)).argmax()])


class TestWhatIsHeard:
    def test_waveforms_differ_and_are_neither_cut_nor_scaled(self, fast: Served) -> None:
        answer = fast.compare(untrained=True)
        for side, frequency in (("full", 220), ("window", 270), ("untrained", 270)):
            samples, rate = fast.sound(answer, side)
            assert rate == FakeSystem.sample_rate
            assert len(samples) == int(STEPS / FakeSystem.codes_per_second * rate)
            assert np.abs(samples).max() == pytest.approx(0.5, abs=1e-3)
            assert pitch(samples, rate) == pytest.approx(frequency, abs=1)

    def test_live_sound_is_the_sound(self, fast: Served) -> None:
        answer = fast.compare()
        run = answer[RESULT]["run"]
        live = httpx.get(f"{fast.address}wand/live/{run}/window").content
        samples, _ = fast.sound(answer, "window")
        np.testing.assert_array_equal(np.frombuffer(live, "<i2"), (samples * 32768).round().astype(np.int16))

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
        answer = fast.compare(recording=handle_file(tmp_path / "voice.wav"))
        assert pitch(*fast.sound(answer, "full")) == pytest.approx(330, abs=1)
        assert "link to repeat it, without your recording" in answer[NOTES]
        assert "without your recording" not in fast.compare()[NOTES]

    def test_two_visitors_do_not_mix(self, slow: Served) -> None:
        other = Client(slow.address, verbose=False)
        first = slow.submit("one two three", seed=1)
        second = other.submit("one two", "low", None, 8, 2, "default", False, api_name="/compare")
        answers = tuple(first.result(timeout=60)), tuple(second.result(timeout=60))
        for answer, seed, words in zip(answers, (1, 2), (3, 2), strict=True):
            assert pitch(*slow.sound(answer, "full")) == pytest.approx(220 + seed, abs=1)
            assert len(answer[RESULT]["sides"]["full"]["parts"]) == 1
            assert answer[RESULT]["sides"]["full"]["parts"][0] == words * STEPS_PER_WORD
        assert "one two</q>" not in answers[0][HISTORY]
        assert "one two three" not in answers[1][HISTORY]


class TestWhatIsShown:
    def test_numbers(self, fast: Served) -> None:
        answer = fast.compare(window=8, seed=3)
        sides = answer[RESULT]["sides"]
        assert sides["full"]["cache_bytes"] == (CONDITIONING + STEPS) * BYTES_PER_TOKEN
        assert sides["window"]["cache_bytes"] == (CONDITIONING + 8) * BYTES_PER_TOKEN
        assert sides["full"]["speech_seconds"] == STEPS / FakeSystem.codes_per_second
        assert "Done." in answer[STATUS]
        assert "53 % less" in answer[STATUS]
        for words in ("60 kB", "28 kB", "−53 %", "2.00 ms"):
            assert words in answer[NUMBERS]
        for words in ("28 kB", f"{CONDITIONING} tokens", "faster than speech", "done", "of memory"):
            assert words in answer[TABLE]

    def test_sides_are_decoded_in_turn(self, slow: Served) -> None:
        """Both take as long: what one side waits for the other is not in its time."""
        started = time.monotonic()
        sides = slow.compare("word " * 10)[RESULT]["sides"]
        assert 0.5 < sides["full"]["seconds"] + sides["window"]["seconds"] < time.monotonic() - started
        assert sides["full"]["seconds"] == pytest.approx(sides["window"]["seconds"], rel=0.3)

    def test_curves_grow_while_it_speaks(self, slow: Served) -> None:
        job = slow.submit(" ".join(["word"] * 12))  # 120 steps a side, 0.6 s or more each
        job.result(timeout=60)
        drawn = [shot[CURVES] for shot in job.outputs() if isinstance(shot[CURVES], str)]
        lengths = [len(polyline_points(svg)) for svg in drawn]
        assert len(lengths) >= 4, "fewer than a few snapshots per second"
        assert lengths == sorted(lengths)
        assert 0 < lengths[1] < 4 * 120, "the first snapshot came when all was over"
        assert lengths[-1] == 4 * 120
        assert "Full attention" in drawn[-1]
        assert "Window, W = 8" in drawn[-1]

    def test_player_comes_with_the_first_step_and_stays(self, slow: Served) -> None:
        job = slow.submit(" ".join(["word"] * 12))
        job.result(timeout=60)
        players = [shot[PLAYER] for shot in job.outputs()]
        sent = [index for index, player in enumerate(players) if isinstance(player, str) and "wand-player" in player]
        assert len(sent) == 1
        assert sent[0] < len(players) - 1

    def test_files_of_a_result(self, fast: Served) -> None:
        answer = fast.compare(window=8)
        run = answer[RESULT]["run"]
        rows = list(csv.DictReader(io.StringIO(httpx.get(f"{fast.address}wand/trace/{run}.csv").text)))
        assert [row["side"] for row in rows] == ["full"] * STEPS + ["window"] * STEPS
        assert int(rows[STEPS - 1]["cache_bytes"]) == (CONDITIONING + STEPS) * BYTES_PER_TOKEN
        trace = httpx.get(f"{fast.address}wand/trace/{run}.json").json()
        assert len(trace["sides"]["window"]["milliseconds"]) == STEPS
        settings = {"speaker": "low", "window": 8, "seed": 0, "untrained": False}
        assert trace.items() >= settings.items()

    def test_repeat_link(self, fast: Served) -> None:
        notes = fast.compare("say & repeat", "high", window=5, seed=7, temperature=0.5)[NOTES]
        link = notes.split("href='?")[1].split("'")[0].replace("&amp;", "&")
        assert parse_qs(link) == {
            "tab": ["compare"],
            "text": ["say & repeat"],
            "speaker": ["high"],
            "window": ["5"],
            "seed": ["7"],
            "temperature": ["0.5"],
            "untrained": ["False"],
        }

    def test_every_setting_of_a_tab_is_in_its_link(self, fast: Served) -> None:
        requests: dict[str, dict[str, Any]] = {
            "compare": {"untrained": True, "window": 5, "seed": 7, "temperature": 0.5},
            "endless": {"memory": 2, "long": "parts", "window": 5},
            "windows": {"weights": "untrained"},
        }
        assert requests.keys() == fast.page.stage.links.keys()
        for tab, settings in requests.items():
            limit, named = fast.page.stage.links[tab]
            values: dict[str, Any] = {"text": TEXT, "speaker": "high"} | settings
            inputs = next(fn for fn in fast.page.fns.values() if fn.api_name == tab).inputs
            names = {component: name for name, component in named.items()}
            notes = fast.client.predict(*(values.get(names.get(each, "")) for each in inputs), api_name=f"/{tab}")[
                NOTES
            ]
            link = html.unescape(notes.split("href='?")[1].split("'")[0])
            found = from_link(dict(parse_qsl(link)), limit, {name: choices(each) for name, each in named.items()})
            assert values.keys() == named.keys(), tab
            assert {name: found[name] for name in named} == values

    def test_history_keeps_the_last_eight(self, slow: Served) -> None:
        client = Client(slow.address, verbose=False)
        runs = []
        for number in range(9):
            answer = client.predict(f"number {number}", "low", None, 8, 0, "default", False, api_name="/compare")
            runs.append(answer[RESULT]["run"])
        assert answer[HISTORY].count("<li>") == 8
        assert "number 0" not in answer[HISTORY]
        assert httpx.get(f"{slow.address}wand/sound/{runs[0]}/full.wav").status_code == 404
        assert httpx.get(f"{slow.address}wand/sound/{runs[1]}/full.wav").status_code == 200

    def test_windows(self, fast: Served) -> None:
        answer = tuple(fast.client.predict(TEXT, "low", None, "student", api_name="/windows"))
        sides = answer[RESULT]["sides"]
        assert list(sides) == ["w4", "w8", "w16", "w32", "full"]
        for size in (4, 8, 16, 32):
            assert sides[f"w{size}"]["cache_bytes"] == (CONDITIONING + size) * BYTES_PER_TOKEN
        assert answer[CURVES].count("<polyline") == 10

    def test_runaway_is_no_success(self, fast: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        original = FakeSystem.codes

        def codes(self: FakeSystem, utterance: Any, trace: Any, on_step: Any) -> Iterator[int]:
            yield from original(self, utterance, trace, on_step)
            trace.finish = "limit" if trace.window else "end"

        monkeypatch.setattr(FakeSystem, "codes", codes)
        answer = fast.compare()
        assert "Student, W = 8 never found the end of the text" in answer[NOTES]
        assert "Teacher, full attention never" not in answer[NOTES]
        assert "length limit" in answer[TABLE]


class TestEndless:
    def test_full_attention_stops_at_the_memory_limit_and_the_window_goes_on(self, fast: Served) -> None:
        text = "A sentence of seven words is here. " * 60
        answer = tuple(fast.client.predict(text, "low", None, 8, 1.5, "default", api_name="/endless"))
        full, window = (answer[RESULT]["sides"][side] for side in ("full", "window"))
        assert full["ended"] == "memory"
        assert window["ended"] == "end"
        limit = 1.5 * (CONDITIONING + 8) * BYTES_PER_TOKEN
        assert limit < full["cache_bytes"] <= limit + BYTES_PER_TOKEN
        assert sum(window["parts"]) == 60 * 7 * STEPS_PER_WORD
        assert "stopped after" in answer[NOTES]
        # What it said until then is heard.
        samples, rate = fast.sound(answer, "full")
        assert len(samples) / rate == pytest.approx(full["speech_seconds"], abs=0.01)
        assert full["speech_seconds"] > 0

    def test_no_limit(self, fast: Served) -> None:
        answer = tuple(fast.client.predict("word " * 40, "low", None, 8, 0.0, "default", api_name="/endless"))
        assert answer[RESULT]["sides"]["full"]["ended"] == "end"

    @pytest.mark.parametrize(
        ("memory", "long"), [(None, "default"), ([1.5], "default"), (True, "parts"), (0, ["parts"])]
    )
    def test_values_of_a_wrong_kind(self, fast: Served, memory: Any, long: Any) -> None:
        with pytest.raises(AppError, match=r"choose one from the list|wrong kind|not in the list"):
            fast.client.predict("word", "low", None, 8, memory, long, api_name="/endless")

    def test_chapter_that_is_too_long(self, fast: Served) -> None:
        with pytest.raises(AppError, match="30,001 characters; the limit here is 30,000"):
            fast.client.predict("a" * (CHAPTER_LIMIT + 1), "low", None, 8, 0.0, "default", api_name="/endless")


class TestBadInput:
    def test_input_error_is_shown_as_text(self, fast: Served) -> None:
        with pytest.raises(AppError) as caught:
            fast.compare("  ")
        assert str(caught.value) == "the text is empty: write a sentence of up to &lt;1000&gt; characters"

    def test_input_error_leaves_the_result_alone(self, fast: Served, tmp_path: Path) -> None:
        """Nothing but the status changes: sounds, curves, table and history stay."""
        (tmp_path / "voice.wav").write_bytes(b"no sound")
        for bad in ({"text": " "}, {"text": "a" * 1001}, {"recording": handle_file(tmp_path / "voice.wav")}):
            job = fast.submit(**bad)
            with pytest.raises(AppError):
                job.result(timeout=30)
            assert job.outputs()
            for shot in job.outputs():
                assert [index for index, value in enumerate(shot) if isinstance(value, str)] == [STATUS]
            assert "Nothing was said: " in job.outputs()[-1][STATUS]

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
            ({"text": "half \ud83d of an emoji"}, "wrong kind|half of a character"),
            ({"speaker": "nobody"}, "not in the list of choices"),
            ({"speaker": ["low"]}, "unknown speaker"),
            ({"speaker": "/etc/passwd"}, "not in the list of choices"),
            ({"window": 1}, "less than minimum value 2"),
            ({"window": 9999}, "greater than maximum value 256"),
            ({"window": "16"}, "wrong kind"),
            ({"window": [16]}, "wrong kind"),
            ({"window": None}, "wrong kind|W must be"),
            ({"seed": None}, "the seed must be a whole number from 0 to"),
            ({"seed": 0.5}, "the seed must be a whole number from 0 to"),
            ({"seed": -1}, "less than minimum value 0"),
            ({"temperature": 77}, "not in the list of choices"),
        ],
    )
    def test_setting_outside_its_limits(
        self, fast: Served, request_: dict[str, Any], message: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The answer says what was wrong, and the console has no traceback."""
        fast.system.requests.clear()
        values = {"text": TEXT, "speaker": "low", "window": 8, "seed": 0, "temperature": "default"} | request_
        data = [
            values["text"],
            values["speaker"],
            None,
            values["window"],
            values["seed"],
            values["temperature"],
            False,
            "",
        ]
        answer = ask(fast, json.dumps({"data": data}))
        assert "event: error" in answer
        (error,) = [line.removeprefix("data: ") for line in answer.splitlines() if line.startswith("data: {")][-1:]
        assert any(part in json.loads(error)["error"] for part in message.split("|"))
        assert "window" not in [asked["attention"] for asked in fast.system.requests]
        assert "Traceback" not in capfd.readouterr().err

    def test_too_few_values(self, fast: Served, capfd: pytest.CaptureFixture[str]) -> None:
        answer = ask(fast, json.dumps({"data": ["hello"]}))
        assert "too few of them" in answer
        assert "Traceback" not in capfd.readouterr().err

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
        assert "Done." in fast.compare()[STATUS]

    def test_upload_over_the_limit_is_refused(self, fast: Served) -> None:
        megabytes = int(UPLOAD_LIMIT.removesuffix("mb"))
        upload = f"{fast.address}gradio_api/upload"
        small = httpx.post(upload, files={"files": ("a.wav", b"0" * 1000)})
        large = httpx.post(upload, files={"files": ("a.wav", b"0" * (megabytes * 1024 * 1024 + 1))})
        assert small.status_code == 200
        assert large.status_code == 413


def ask(served: Served, body: str) -> str:
    """Send a body to the first tab as no client of gradio's would; return the server's answer."""
    call = f"{served.address}gradio_api/call/compare"
    event = httpx.post(call, content=body, headers={"content-type": "application/json"}).raise_for_status()
    return httpx.get(f"{call}/{event.json()['event_id']}", timeout=30).text


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

    @pytest.mark.parametrize(
        "path",
        [
            "gradio_api/file=/etc/passwd",
            "wand/static/../page.py",
            "wand/static/%2e%2e/page.py",
            "wand/sound/..%2f..%2fetc/full.wav",
            "wand/trace/..%2fsecret.json",
            "wand/live/nobody/full",
        ],
    )
    def test_file_of_the_server_is_not_served(self, fast: Served, path: str) -> None:
        assert httpx.get(fast.address + path).status_code in (403, 404)

    @pytest.mark.parametrize("address", ["https://example.org/huge.wav", " HTTP://example.org/huge.wav"])
    def test_nothing_is_fetched_from_the_web(self, fast: Served, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """gradio would, of any size, before a handler sees it."""
        fetched = list[Any]()
        monkeypatch.setattr("safehttpx.get", lambda *given, **_: fetched.append(given))
        monkeypatch.setattr("safehttpx.async_validate_url", lambda *given, **_: fetched.append(given))
        assert_refused(fast, {"path": address})
        assert "not an address on the web: upload it" in ask_by_hand(fast, {"path": address})
        assert fetched == []


def ask_by_hand(served: Served, recording: dict[str, str]) -> str:
    file = {**recording, "meta": {"_type": "gradio.FileData"}}
    return ask(served, json.dumps({"data": [TEXT, "low", file, 8, 0, "default", False, ""]}))


def assert_refused(served: Served, recording: dict[str, str]) -> None:
    served.system.requests.clear()
    answer = ask_by_hand(served, recording)
    assert "event: error" in answer
    assert "event: complete" not in answer
    assert served.system.requests == []


class TestStopping:
    long_text = " ".join(["word"] * 100)  # 1,000 steps a side, 5 s each

    def test_stopped_job_frees_the_turn(self, slow: Served) -> None:
        before = slow.system.steps_made
        job = slow.submit(self.long_text)
        wait_for_steps(job)
        job.cancel()
        assert "Done." in slow.compare("again")[STATUS]
        assert slow.system.steps_made - before < 2_000, "it went on to its end"

    def test_client_that_goes_away(self, slow: Served) -> None:
        before = slow.system.steps_made
        call = f"{slow.address}gradio_api/call/compare"
        data = [self.long_text, "low", None, 8, 0, "default", False, ""]
        event = httpx.post(call, json={"data": data}).json()
        with httpx.stream("GET", f"{call}/{event['event_id']}") as answer:
            for line in answer.iter_lines():
                if line.startswith("data: ") and "polyline" in line:
                    break
        assert "Done." in slow.compare("again")[STATUS]
        assert slow.system.steps_made - before < 2_000, "it went on to its end"

    def test_client_that_never_reads(self, slow: Served) -> None:
        """gradio keeps what is not fetched, 13 kB an update: it gets a few, and then the result."""
        call = f"{slow.address}gradio_api/call/compare"
        data = ["word " * 40, "low", None, 8, 0, "default", False, ""]
        body = {"data": data, "session_hash": "never"}
        event = httpx.post(call, json=body).raise_for_status().json()["event_id"]
        deadline = time.monotonic() + 60
        while not slow.page.stage.store.of("never"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert UNREAD < slow.page.stage.unread("never") <= UNREAD + 4
        httpx.post(call, json=body).raise_for_status()
        answer = httpx.get(f"{call}/{event}", timeout=30).text
        assert "event: complete" in answer
        assert "Done." in answer
        assert "The answers to earlier requests were not fetched" in answer

    def test_who_waits_knows_how_long(self, slow: Served) -> None:
        first = slow.submit(self.long_text)
        wait_for_steps(first)
        other = Client(slow.address, verbose=False)
        second = other.submit("short", "low", None, 8, 0, "default", False, api_name="/compare")
        deadline = time.monotonic() + 10
        while not any("Waiting: 1 before you." in shot[STATUS] for shot in second.outputs()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.cancel()
        assert "Done." in second.result(timeout=30)[STATUS]


class TestBlind:
    """The handlers of the blind test, called as gradio does."""

    visitor = gr.Request(session_hash="blind")

    def handlers(self, served: Served) -> dict[str, Any]:
        return {fn.name: fn for fn in served.page.fns.values() if fn.name in ("pair", "vote")}

    def ballots(self, served: Served, changes: list[dict[Any, Any]]) -> list[Ballot]:
        (state,) = self.handlers(served)["vote"].inputs
        return [change[state] for change in changes if state in change]

    def test_pair_then_one_vote(self, fast: Served) -> None:
        pair, vote = (self.handlers(fast)[name].fn for name in ("pair", "vote"))
        (ballot,) = self.ballots(fast, list(pair(Ballot(), self.visitor)))
        (voted,) = self.ballots(fast, [vote(ballot)])
        assert len(voted.votes) == 1
        assert self.ballots(fast, [vote(voted)]) == [], "pressed twice"

    def test_every_test_has_an_order_of_its_own(self, fast: Served) -> None:
        """The page hands every visitor the same first state."""
        pair, first = self.handlers(fast)["pair"].fn, Ballot()
        orders = {self.ballots(fast, list(pair(first, self.visitor)))[0].student for _ in range(3)}
        assert len(orders) > 1

    def test_pair_that_is_stopped_is_not_offered(self, slow: Served) -> None:
        pair, changes, before = self.handlers(slow)["pair"].fn, list[Any](), stored(slow)
        for change in pair(Ballot(), self.visitor):
            changes.append(change)
            if stored(slow) - before:
                slow.page.stage.stop("blind")
        assert "This pair was stopped" in str(changes[-1].values())
        assert self.ballots(slow, changes) == []
        assert stored(slow) == before, "it is not kept"

    def test_pair_that_is_stopped_while_it_waits(self, slow: Served) -> None:
        first = slow.submit(TestStopping.long_text)
        wait_for_steps(first)
        shots = self.handlers(slow)["pair"].fn(Ballot(), self.visitor)
        assert "Waiting: 1 before you." in str(next(shots).values())
        slow.page.stage.stop("blind")
        changes = list(shots)
        assert "This pair was stopped" in str(changes[-1].values())
        assert self.ballots(slow, changes) == []
        first.cancel()


def stored(served: Served) -> set[str]:
    return set(served.page.stage.store._runs)


def wait_for_steps(job: Any) -> None:
    deadline = time.monotonic() + 20
    while not any(": step " in shot[STATUS] for shot in job.outputs()):
        assert time.monotonic() < deadline, "no step was ever reported"
        time.sleep(0.02)


def polyline_points(svg: str) -> list[str]:
    return [point for line in svg.split('<polyline points="')[1:] for point in line.split('"')[0].split()]


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_system_without_built_in_speakers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the published ones are: the page opens, and asks for a recording."""
    monkeypatch.setattr(FakeSystem, "speakers", [])
    served = Served(FakeSystem())
    assert not elements(served, "blind"), "there is no voice to say its sentences"
    with pytest.raises(AppError, match="give a recording"):
        served.compare(speaker=None)
    soundfile.write(tmp_path / "voice.wav", 0.1 * np.ones(8000), 16_000)
    assert "Done." in served.compare(speaker=None, recording=handle_file(tmp_path / "voice.wav"))[STATUS]
    served.page.close()


def elements(served: Served, name: str) -> list[Any]:
    return [each for each in served.page.blocks.values() if getattr(each, "elem_id", None) == name]


def test_recordings_are_not_shared(fast: Served) -> None:
    """gradio's Share button would post a visitor's voice."""
    recordings = [each for each in fast.page.blocks.values() if isinstance(each, gr.Audio)]
    assert len(recordings) == 3
    assert all(recording.buttons == ["download"] for recording in recordings)
    assert len(elements(fast, "blind")) == 1


def test_page_asks_nothing_of_other_machines(fast: Served) -> None:
    page = httpx.get(fast.address).text
    for fetched in ("fonts.googleapis", "gstatic", "cdnjs", "google-analytics"):
        assert fetched not in page
    assert isinstance(fast.page, gr.Blocks)
    assert not fast.page.analytics_enabled
    assert not fast.page.share


def test_nothing_is_left_when_the_page_is_closed() -> None:
    before = decoding_threads()
    served = Served(FakeSystem())
    served.compare()
    folder = served.page.stage.store.folder
    assert list(folder.iterdir())
    served.page.close()
    assert not folder.exists()
    assert decoding_threads() == before


def decoding_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("wand-decode")}
