"""The evaluation of a system that beeps, with instruments whose answers are known; the embedded voice once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import soundfile
from fake_system import STEPS_PER_WORD, FakeSystem
from numpy.typing import NDArray

from wandlib.evaluation.error_rates import error_rates
from wandlib.evaluation.measurement import SENTENCES, evaluate, reference_sounds
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.report import Report, Utterance, markdown_table, put_measured
from wandlib.systems import InputError, Speech, load_system

TEXTS = ["one two three", "four five", "six seven eight nine", "a b c d e", "f g h i j k"]
Sound = NDArray[np.float32]


class Listener:
    """Hears how long a beep is, and by its pitch under the window (50 Hz more) all but the last word."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.heard = texts, 0

    def __call__(self, waveform: Sound, sample_rate: int) -> str:
        self.heard += 1
        words = round(len(waveform) / sample_rate * 25 / STEPS_PER_WORD)
        text = next(text for text in self.texts if len(text.split()) == words)
        return text.rsplit(" ", 1)[0] if pitch(waveform, sample_rate) % 100 > 60 else text


def pitch(waveform: Sound, sample_rate: int) -> int:
    """In Hz: half the zero crossings in a second."""
    return round(np.count_nonzero(np.diff(waveform >= 0)) / 2 / (len(waveform) / sample_rate))


def encode(waveform: Sound, sample_rate: int) -> Sound:
    """High or low, and a little of how high."""
    high = pitch(waveform, sample_rate)
    return np.array([high > 350, high <= 350, 0.001 * high], np.float32)


REFERENCES = {name: FakeSystem().synthesize("a b c", name).waveform for name in ("low", "high")}


@pytest.fixture(scope="module")
def report() -> Report:
    return evaluate(FakeSystem(), TEXTS, recognizer=Listener(TEXTS), encoder=encode, references=REFERENCES)


def test_every_sentence_speaker_seed_and_attention_once(report: Report) -> None:
    spoken = [(u.condition, u.text, u.speaker, u.seed) for u in report.utterances]
    assert len(spoken) == len(set(spoken)) == 2 * 5 * 2 * 3
    assert report.conditions == ["full", "window 8"]
    assert report.metrics == ["WER", "CER", "similarity"]
    assert report.instruments == {"system": "fake", "recognizer": "Listener", "speaker encoder": "function"}


def test_rates_are_those_of_all_that_was_heard(report: Report) -> None:
    """Full attention is understood; under the window the last of 2 to 6 words is lost."""
    assert report.interval("WER", "full").value == 0
    assert report.interval("WER", "window 8").value == pytest.approx(5 / 20)
    heard = [u for u in report.utterances if u.condition == "window 8"]
    expected = error_rates([u.text for u in heard], [u.heard for u in heard])
    assert report.interval("CER", "window 8").value == pytest.approx(expected.cer)
    low, high = report.interval("WER", "window 8").low, report.interval("WER", "window 8").high
    assert 1 / 6 <= low < 5 / 20 < high <= 1 / 2  # no draw leaves what single sentences have
    assert str(report.interval("WER", "full")) == "0.000"  # none, where no sentence has an error


def test_similarity_is_to_the_speakers_own_reference(report: Report) -> None:
    assert report.interval("similarity", "full").value > 0.99
    swapped = dict(zip(REFERENCES, reversed(REFERENCES.values()), strict=True))
    crossed = evaluate(
        FakeSystem(), TEXTS[:1], seeds=[0], recognizer=Listener(TEXTS), encoder=encode, references=swapped
    )
    assert crossed.interval("similarity", "full").value < 0.2


def test_difference_is_paired(report: Report) -> None:
    found = report.difference("WER", "window 8", "full")
    assert found == report.interval("WER", "window 8")  # full attention makes no error
    assert 0.0 not in found
    assert str(report.difference("similarity", "full", "full")) == "0.000"


def test_differences_of_all_metrics(report: Report) -> None:
    table = report.differences("full")
    assert list(table["condition"]) == ["window 8 - full"]
    assert list(table["WER"]) == [str(report.interval("WER", "window 8"))]
    assert list(table.columns[1:]) == report.metrics


def test_a_score_that_one_side_lacks_is_no_difference() -> None:
    """What makes no sound has no score: under the window nothing, or never where full attention has one."""

    def of(condition: str, text: str, score: float | None) -> Utterance:
        scores = {} if score is None else {"DNSMOS": score}
        return Utterance(condition, text, "low", 0, None, None, 0.5, scores, [], 1.0, 2.0, 1000, 0.1)

    for pairs in ([(3.0, None), (3.0, None)], [(3.0, None), (None, 3.0)]):
        rows = [of(name, text, pair[i]) for i, name in enumerate("ab") for text, pair in zip("12", pairs, strict=True)]
        assert list(Report({}, rows).differences("a")["DNSMOS"]) == ["nan"]
    assert math.isnan(Report({}, rows).difference("DNSMOS", "b", "a").value)


def test_difference_needs_the_same_sentences(report: Report) -> None:
    other = evaluate(
        FakeSystem(), TEXTS[:2], recognizer=Listener(TEXTS), encoder=encode, references=REFERENCES, name="other"
    )
    with pytest.raises(ValueError, match="not of the same sentences"):
        (report + other).difference("WER", "other, full", "full")


def test_what_was_not_measured_is_named(report: Report) -> None:
    with pytest.raises(ValueError, match=r"no 'UTMOS' under 'full': measured are WER, CER, similarity under full, win"):
        report.interval("UTMOS", "full")
    with pytest.raises(ValueError, match="of speaker 'nobody'"):
        report.interval("WER", "full", "nobody")


def test_table_has_a_row_a_condition_and_speaker(report: Report) -> None:
    table = report.table()
    assert list(table["condition"]) == ["full", "window 8"]
    assert list(table["utterances"]) == [30, 30]
    assert table["WER"][1] == pytest.approx(5 / 20)
    assert list(table["WER, 95 %"]) == ["", str(report.interval("WER", "window 8"))[7:-1]]
    assert table["cache, kB"][1] == 28  # 20 conditioning tokens and 8 of the window
    assert list(report.table(by_speaker=True)["speaker"]) == ["low", "high", "low", "high"]


def test_markdown_says_who_listened(report: Report) -> None:
    lines = report.markdown().splitlines()
    assert lines[0].startswith("| condition | utterances | WER | WER, 95 % | CER |")
    assert lines[3].startswith("| window 8 | 30 | 0.250 | 0.")
    assert lines[-1] == "system: fake, recognizer: Listener, speaker encoder: function."


def test_markdown_leaves_nan_empty(report: Report) -> None:
    table = report.table()[["condition", "WER"]].assign(WER=math.nan)
    assert markdown_table(table).splitlines()[-1] == "| window 8 |  |"


def test_json_is_read_again(report: Report, tmp_path: Path) -> None:
    text = report.to_json(tmp_path / "report.json")
    assert Report.from_json(tmp_path / "report.json") == report
    assert json.loads(text)["utterances"][0]["text"] == TEXTS[0]


def test_reports_add_under_names_of_their_own(report: Report) -> None:
    student = Report(report.instruments, report.utterances[:1])
    with pytest.raises(ValueError, match=r"both have \['full'\]"):
        report + student
    with pytest.raises(ValueError, match="do not compare"):
        report + Report({"recognizer": "Whisper"})
    rows = [replace(row, condition=f"other, {row.condition}") for row in report.utterances]
    both = report + Report(report.instruments | {"system": "other"}, rows)
    assert both.instruments == report.instruments | {"system": "fake, other"}
    assert len(both.conditions) == 4


def test_of_how_many_a_mean_is(report: Report) -> None:
    """What made no sound has no score: a mean of the others says so."""
    rows = [
        replace(row, scores={} if row.condition == "full" and number % 3 else {"DNSMOS": 3.0})
        for number, row in enumerate(report.utterances)
    ]
    found = Report(report.instruments, rows)
    scored = sum(bool(row.scores) for row in rows if row.condition == "full")
    full, window = found.table()["DNSMOS, 95 %"]
    assert full.endswith(f"(of {scored} alone)")
    assert "alone" not in window
    assert "alone" not in found.table()["WER, 95 %"][0]
    assert found.differences("full")["DNSMOS"][0].endswith(f"(of {scored} alone)")


def test_greedy_speech_is_listened_to_once() -> None:
    """The same sound with every seed is recognized once; its utterances are all there."""
    listener = Listener(TEXTS)

    class Greedy(FakeSystem):
        def synthesize(self, text: str, *settings: Any, **named: Any) -> Speech:
            return super().synthesize(text, *settings, **named | {"seed": 0})

    found = evaluate(Greedy(), TEXTS, attentions=["full"], recognizer=listener, encoder=encode, references=REFERENCES)
    assert len(found.utterances) == 5 * 2 * 3
    assert listener.heard == 5 * 2


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_what_was_measured_outlives_the_evaluation(kind: type[BaseException]) -> None:
    listener, found = Listener(TEXTS), Report({})

    def listen(waveform: Sound, sample_rate: int) -> str:
        if listener.heard == 5:
            raise kind
        return listener(waveform, sample_rate)

    options: dict[str, Any] = {"recognizer": listen, "encoder": encode, "references": REFERENCES}
    with pytest.raises(kind):
        evaluate(FakeSystem(), TEXTS, seeds=[0], report=found, **options)
    assert [(u.text, u.speaker, u.condition) for u in found.utterances] == [
        (TEXTS[0], "low", "full"),
        (TEXTS[0], "low", "window 8"),
        (TEXTS[0], "high", "full"),
        (TEXTS[0], "high", "window 8"),
        (TEXTS[1], "low", "full"),
    ]
    assert found.instruments["system"] == "fake"
    with pytest.raises(ValueError, match="holds utterances already"):
        evaluate(FakeSystem(), TEXTS, report=found, **options)


def test_a_text_that_was_cut_otherwise_is_judged_by_its_characters() -> None:
    class Parts(FakeSystem):
        def count_symbols(self, text: str) -> list[int]:
            return [1, 1]

    found = evaluate(Parts(), TEXTS[:1], seeds=[0], recognizer=Listener(TEXTS), encoder=encode)
    assert [u.failures for u in found.utterances] == [[]] * 4


def test_scores_and_what_is_unavailable() -> None:
    offline = Unavailable("no network")
    found = evaluate(
        FakeSystem(),
        TEXTS,
        seeds=[0],
        recognizer=Listener(TEXTS),
        encoder=Unavailable("not asked for"),
        mos={"loud": lambda sound, rate: {"LOUD": float(np.abs(sound).max())}, "utmos": offline},
    )
    assert found.metrics == ["WER", "CER", "LOUD"]
    assert found.interval("LOUD", "full").value == pytest.approx(0.5, abs=0.01)
    assert found.unavailable == {"utmos": "no network", "similarity": "not asked for"}
    assert found.markdown().endswith("Not measured: utmos (no network).\nNot measured: similarity (not asked for).")


def test_silence_counts_as_all_words_lost_and_nobody() -> None:
    class Mute(FakeSystem):
        def synthesize(self, text: str, *settings: Any, **named: Any) -> Speech:
            speech = super().synthesize(text, *settings, **named)
            speech.waveform, speech.codes, speech.trace.steps = speech.waveform[:100], speech.codes[:0], []
            return speech

    score = {"loud": lambda sound, rate: {"LOUD": 1.0}}
    found = evaluate(Mute(), TEXTS, seeds=[0], encoder=encode, references=REFERENCES, mos=score)
    assert found.interval("WER", "full").value == 1
    assert found.interval("similarity", "full").value == 0
    assert found.table()["early stop"][0] == 10
    assert found.metrics == ["WER", "CER", "similarity"]


def test_a_speaker_without_a_reference_is_named() -> None:
    found = evaluate(FakeSystem(), TEXTS, seeds=[0], recognizer=Listener(TEXTS), encoder=encode)
    assert found.unavailable == {"similarity of low, high": "no reference sound: pass references"}
    assert "similarity" not in found.table().columns


def test_reference_sounds_of_files_and_of_the_embedded_voice(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "voice.wav", np.full((8000, 2), 0.25), 8000)
    (tmp_path / "no.wav").write_text("no sound", encoding="utf-8")
    found = reference_sounds(FakeSystem(), ["low", str(tmp_path / "voice.wav")])
    assert list(found) == [str(tmp_path / "voice.wav")]
    assert len(found[str(tmp_path / "voice.wav")]) == 16_000
    with pytest.raises(InputError, match="cannot read the reference"):
        reference_sounds(FakeSystem(), [str(tmp_path / "no.wav")])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"texts": []}, "texts is empty"),
        ({"seeds": [0, 0]}, "seeds hold the same twice"),
        ({"speakers": []}, "speakers is empty"),
        ({"texts": "one"}, "texts must be a list; got 'one'"),
        ({"attentions": "window"}, "attentions must be a list; got 'window'"),
        ({"seeds": 3}, "seeds must be a list; got 3"),
        ({"texts": ["one", "123"]}, "reference '123' has digits"),
    ],
)
def test_what_cannot_be_evaluated(settings: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no checks of types either
    with pytest.raises(ValueError, match=words):
        evaluate(FakeSystem(), **{"texts": TEXTS, "encoder": encode, "recognizer": Listener(TEXTS)} | settings)


def test_the_embedded_voice_is_understood_and_known_again() -> None:
    """One sentence: far from silence (an error rate of 1), and closer than another voice is, by the card."""
    found = evaluate(load_system("mini"), SENTENCES[:1], speakers=["henry"], attentions=["full"], seeds=[0])
    assert found.interval("CER", "full").value < 0.5
    assert found.interval("similarity", "full").value > 0.87
    assert [u.failures for u in found.utterances] == [[]]


def test_put_measured_needs_its_marks() -> None:
    text = "a\n<!-- measured -->\nold\nlines\n<!-- end of measured -->\nb"
    assert put_measured(text, r"new \1") == "a\n<!-- measured -->\nnew \\1\n<!-- end of measured -->\nb"
    with pytest.raises(ValueError, match="measured"):
        put_measured("nothing", "new")
