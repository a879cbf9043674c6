"""Who speaks in an evaluation: recordings with what they say, systems without a voice, and what cannot be spoken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
import soundfile
import tiny_codec_lm
from fake_system import FakeSystem

from wandlib.evaluation.measurement import evaluate
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.voices import OWN_VOICE, check_speakable, reference_sounds, voices_of
from wandlib.systems import InputError, SpeechSystem, load_system

NONE = Unavailable("not asked for")


def hear_yes(waveform: Any, sample_rate: int) -> str:
    return "yes"


@pytest.fixture
def tiny(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SpeechSystem:
    monkeypatch.setattr("wandlib.systems.codec_lm.system.CONTEXT", 200)
    tiny_codec_lm.write(request.param, tmp_path / "checkpoint")
    return load_system(request.param, tmp_path / "checkpoint")


@pytest.mark.parametrize("tiny", ["neutts", "llasa"], indirect=True)
def test_a_transcript_belongs_to_a_recording(tiny: SpeechSystem, tmp_path: Path) -> None:
    one, other = (str(recordings.write(tmp_path / f"{name}.wav", seconds=0.6)) for name in ("one", "other"))
    said = {one: {"transcript": "YOU."}, other: {"transcript": "ME."}}
    options: dict[str, Any] = {"attentions": ["window"], "seeds": [0], "recognizer": hear_yes, "encoder": NONE}
    report = evaluate(tiny, ["YES."], speakers=said, **options)
    assert [(u.speaker, u.condition) for u in report.utterances] == [(one, "window 64"), (other, "window 64")]


@pytest.mark.parametrize("tiny", ["llasa"], indirect=True)
def test_a_system_may_speak_in_a_voice_of_its_own(tiny: SpeechSystem) -> None:
    report = evaluate(tiny, ["YES."], attentions=["full"], seeds=[0], top_k=5, recognizer=hear_yes, encoder=NONE)
    assert [u.speaker for u in report.utterances] == [OWN_VOICE]
    assert report.interval("WER", "full", OWN_VOICE).value == 0


@pytest.mark.parametrize("tiny", ["neutts"], indirect=True)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "'YES.' cannot be spoken: NeuTTS needs a reference and what it says"),
        ({"speakers": ["voice.wav"]}, "cannot be spoken by voice.wav: a reference needs its transcript"),
        ({"mood": "glad"}, "no setting named 'mood'"),
        ({"long": "one cache"}, "leave out long='one cache'"),
        ({"seeds": [0, -1]}, "the seed is between 0 and"),
        ({"speakers": {"silent.wav": {"transcript": "YOU."}}}, "the reference is silent"),
    ],
)
def test_what_cannot_be_spoken_is_said_before_anything_is_loaded(
    tiny: SpeechSystem, settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    recordings.write(Path("voice.wav"))
    recordings.write(Path("silent.wav"), level=0)
    for instrument in ("default_recognizer", "Resemblyzer"):
        monkeypatch.setattr(f"wandlib.evaluation.measurement.{instrument}", lambda: pytest.fail("loaded"))
    with pytest.raises(InputError, match=words):
        evaluate(tiny, ["YES."], **settings)


def test_a_text_that_cannot_be_spoken_costs_nothing() -> None:
    system = FakeSystem()
    with pytest.raises(InputError, match="' ' cannot be spoken by low: the text is empty"):
        evaluate(system, ["one two", " "], recognizer=hear_yes, encoder=NONE)
    assert system.steps_made == 0


def test_each_speaker_has_settings_of_its_own_before_those_of_all() -> None:
    voices = voices_of(FakeSystem(), {"low": {"temperature": 0.5}, "high": {}}, temperature=1.0, window=4)
    assert voices == {"low": {"temperature": 0.5, "window": 4}, "high": {"temperature": 1.0, "window": 4}}
    system = FakeSystem()
    evaluate(system, ["one"], speakers={"high": {"temperature": 0.5}}, seeds=[0], recognizer=hear_yes, encoder=NONE)
    assert {(asked["reference"], asked["temperature"]) for asked in system.requests} == {("high", 0.5)}


def test_the_embedded_voice_refuses_texts_and_recordings_as_it_does_alone(tmp_path: Path) -> None:
    tts = load_system("mini")
    broken = str(tmp_path / "nan.wav")
    soundfile.write(broken, np.full(32_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    for text, reference, words in (
        ("See <b>this</b> now.", "clara", "the text holds the tag '<b>'"),
        ("Hello, Привет, мир, это я.", "clara", "mostly in another script"),
        ("Hello.", broken, "NaN or infinite samples: export it again"),
        ("Hello.", "nobody", "no speaker named 'nobody'"),
    ):
        with pytest.raises(InputError, match=words):
            check_speakable(tts, text, {reference: {}})
    with pytest.raises(InputError, match=r"cannot read the reference '.*nan.wav': .*NaN"):
        reference_sounds(tts, [None, broken])
