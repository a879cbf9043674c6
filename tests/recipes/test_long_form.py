"""Long decodes: one cache for many sentences, groups whose sound is their own, first minutes against last ones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipes.mini import endless, long_form
from recipes.mini.endless import Sentence, Sound
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.report import put_measured
from wandlib.profiling.measure import processor
from wandlib.systems.base import Attention
from wandlib.systems.mini.features import SAMPLES_PER_CODE
from wandlib.systems.mini.system import MiniSystem

TEXTS = ["The sky is blue today.", "We like it.", "It will rain.", "Then we stay here.", "So be it.", "All is well."]


@pytest.fixture(scope="module")
def system() -> MiniSystem:
    return MiniSystem.load()


def test_the_windows_cache_stays_and_full_attention_grows(system: MiniSystem) -> None:
    held = {}
    for attention in ("window", "full"):
        spoken = list(endless.speak(system, attention, system.speakers[0], TEXTS))  # type: ignore[arg-type]
        assert [sentence.text for sentence, _ in spoken] == TEXTS
        for sentence, sound in spoken:
            assert len(sound) == sentence.codes * SAMPLES_PER_CODE
            assert len(sentence.milliseconds) == len(sentence.cache_bytes) >= sentence.codes
        held[attention] = [max(sentence.cache_bytes) for sentence, _ in spoken if sentence.codes]
    assert held["full"] == sorted(held["full"])
    assert held["full"][-1] > 2 * held["full"][0]
    assert max(held["window"]) < 1.5 * held["window"][0]


def test_the_first_sentence_is_what_the_library_says(system: MiniSystem) -> None:
    """Greedy, the first sentence of a stream has the codes of the sentence alone."""
    name = system.speakers[0]
    for attention in ("window", "full"):
        ((sentence, _),) = endless.speak(system, attention, name, TEXTS[:1])  # type: ignore[arg-type]
        alone = system.synthesize(TEXTS[0], name, attention, temperature=0.0)  # type: ignore[arg-type]
        assert sentence.codes == len(alone.codes)
        assert sentence.ended == (alone.trace.finish == "end")


def test_in_parts_each_sentence_is_spoken_as_if_alone(system: MiniSystem) -> None:
    name = system.speakers[0]
    for sentence, sound in endless.speak(system, "window", name, TEXTS[:3], long="parts"):
        alone = system.synthesize(sentence.text, name, "window", temperature=0.0)
        assert sentence.codes == len(alone.codes)
        np.testing.assert_allclose(sound, alone.waveform, atol=1e-4)


def constant(codes: int) -> endless.Endless:
    """Make a speaker whose sentence n sounds as the number n."""

    def speak(
        system: MiniSystem, attention: Attention, speaker: str, texts: Iterable[str]
    ) -> Iterator[tuple[Sentence, Sound]]:
        for number, text in enumerate(texts):
            sound = np.full(codes * SAMPLES_PER_CODE, number / 100, np.float32)
            yield Sentence(text, codes, number < 6, [float(number)] * codes, [1000 + number] * codes), sound

    return speak


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """A recognizer that hears "yes" and keeps the sound; no speaker encoder."""
    heard: list[np.ndarray] = []

    def recognize(sound: np.ndarray, rate: int) -> str:
        heard.append(sound)
        return "yes"

    monkeypatch.setattr(long_form, "recognizer", lambda: recognize)
    monkeypatch.setattr(long_form, "identity", lambda: Unavailable("not here"))
    monkeypatch.setattr(long_form, "known_voices", lambda assets: ({}, {}))
    return heard


@pytest.mark.parametrize("codes", [10, 125])
def test_each_group_is_heard_by_itself(ears: list[np.ndarray], codes: int) -> None:
    """Of 125 codes, two fill a group."""
    found, last = long_form.measure(None, "window", "a", 1.0, ["Yes."] * 6, constant(codes))
    sentences = [group["sentences"] for group in found["groups"]]
    assert sentences == ([6] if codes == 10 else [2, 2, 2])
    start = 0
    for group, sound in zip(found["groups"], ears, strict=True):
        assert sorted({round(100 * float(value)) for value in sound}) == list(range(start, start + group["sentences"]))
        start += group["sentences"]
        assert group["word errors"] == group["sentences"] - 1  # "yes" once
        assert group["cache bytes"] == 1000 + start - 1
    assert found["seconds"] == 6 * codes / 25
    assert len(last) == min(6 * codes * SAMPLES_PER_CODE, long_form.KEPT * 16_000)


def test_every_sentence_by_itself(ears: list[np.ndarray]) -> None:
    """Also those of which nothing was said: other sentences must not take their numbers."""
    judge = long_form.Judge(None, "a", longest=0.0)
    for codes in (0, 0, 10, 0):
        judge.add(Sentence("Yes.", codes), np.zeros(codes * SAMPLES_PER_CODE, np.float32))
    judge.finish()
    assert [group["seconds"] for group in judge.groups] == [0, 0, 0.4, 0]
    judge, ears[:] = long_form.Judge(None, "a", longest=0.0), []
    for sentence, sound in constant(10)(None, "window", "a", ["Yes."] * 5):  # type: ignore[arg-type]
        judge.add(sentence, sound)
    judge.finish()
    assert [group["sentences"] for group in judge.groups] == [1] * 5
    assert [round(100 * float(sound[0])) for sound in ears] == [0, 1, 2, 3, 4]


def test_it_stops_when_the_time_is_full_or_the_text_is_lost(ears: list[np.ndarray]) -> None:
    found, _ = long_form.measure(None, "window", "a", 0.5, ["Yes."] * 50, constant(250))
    assert found["seconds"] == 30
    assert not found["given up"]
    found, _ = long_form.measure(None, "window", "a", 10.0, ["Yes."] * 50, constant(250))
    assert found["given up"]  # from the seventh on, no sentence finds an end
    assert found["seconds"] == (6 + long_form.GIVE_UP) * 10


def groups(count: int, seconds: float = 20.0) -> list[long_form.Group]:
    """Groups of ten words each; the last six have an error each, and a similarity lower by .01."""
    return [
        {
            "second": number * seconds, "seconds": seconds, "sentences": 3, "without an end": 0, "words": 10,
            "word errors": int(number >= count - 6), "similarity": 0.9 - 0.01 * (number >= count - 6),
            "ms a step": 2.0, "cache bytes": 1000,
        }
        for number in range(count)
    ]  # fmt: skip


def test_last_minutes_against_first_ones() -> None:
    first, last, apart = long_form.compared(groups(30), "WER")
    assert (first, last) == (0, pytest.approx(0.1))
    assert apart.value == pytest.approx(0.1)
    first, last, apart = long_form.compared(groups(30), "similarity")
    assert apart.value == pytest.approx(-0.01)
    decode = {"seconds": 600, "given up": False, "groups": groups(30), "minutes asked": 10}
    line = long_form.line("student, a", decode)
    assert line["WER apart"].startswith("+0.100")
    assert line["sentences without an end"] == "0 of 90"
    assert [row["WER, x"] for row in long_form.course({"x": decode}, 5)] == [0, pytest.approx(6 / 150)]


def test_one_cache_against_parts() -> None:
    """10 words a group: an error in 6 of 30 groups, and in 12 of 60, which are no more."""
    one, twice, none = groups(30), groups(30) * 2, groups(30)[:24]
    assert long_form.apart(twice, twice, "WER")[:2] == (0.02, 0.02)
    of_none, of_one, difference = long_form.apart(none, one, "WER")
    assert (of_none, of_one, difference.value) == (0.0, 0.02, 0.02)
    assert 0 < difference.low < 0.01
    decodes = {"student, a": one, "student in parts, a": none}
    result = {
        "seconds of a group": 12, "machine": "one", "date": "today",
        "decodes": {
            name: {"seconds": 20 * len(of), "given up": False, "groups": of, "minutes asked": 10}
            for name, of in decodes.items()
        },
    }  # fmt: skip
    text = long_form.document(result)
    assert "all of the short decodes: 0.020 in one cache, 0.000 in parts: +0.020 (+0.0" in text
    assert "all of the long one" not in text


def test_a_long_decode_by_halves() -> None:
    """The six errors are in the last six of thirty groups."""
    row = long_form.halves("student, a", groups(30))
    assert (row["WER, first half"], row["second half (WER)"]) == (0, pytest.approx(6 / 150))
    assert row["WER apart"].startswith("+0.040 (+0.0")
    assert row["similarity apart"].startswith("-0.004 (-0.0")


def test_what_rises_in_both_is_of_the_text() -> None:
    """Six errors among 150 words of the second half; none where every group has the same."""
    late, same = groups(30), [group | {"word errors": 1} for group in groups(30)]
    assert long_form.drift(late, same).startswith("+0.040 (+0.0")
    assert long_form.drift(late, late).startswith("+0.000 (-0.0")


def test_what_was_measured_before_keeps_its_machine_and_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, report, before = tmp_path / "a.json", tmp_path / "A.md", json.loads(long_form.RESULTS.read_text())
    results.write_text(json.dumps(before), encoding="utf-8")
    report.write_text(long_form.REPORT.read_text(encoding="utf-8"), encoding="utf-8")

    class Workers:
        """In the place of processes: every decode is on disk afterwards."""

        def __init__(self, count: int) -> None: ...
        def __enter__(self) -> Workers:
            return self

        def __exit__(self, *_: object) -> None: ...
        def imap(self, function: object, jobs: list[long_form.Decode]) -> list[dict[str, Any]]:
            for *_, path in jobs:
                path.touch()
            return [decode for name, decode in before["decodes"].items() if name in asked]

    asked = [f"{long_form.WAYS[way][0]}, clara" for way in long_form.WAYS]
    for name, value in {"RESULTS": results, "REPORT": report, "Workers": Workers}.items():
        monkeypatch.setattr(long_form, name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # main sets it
    for machine in (f"{processor()}, {os.cpu_count()} cores", "The first machine"):
        long_form.main(longest=0, speakers=["clara"], folder=tmp_path, write=True)
        made = json.loads(results.read_text())
        assert made["machine"] == machine
        results.write_text(json.dumps(made | {"machine": "The first machine"}), encoding="utf-8")


def test_the_report_quotes_the_results() -> None:
    text = long_form.REPORT.read_text(encoding="utf-8")
    result = json.loads(long_form.RESULTS.read_text(encoding="utf-8"))
    assert put_measured(text, long_form.document(result)) == text
