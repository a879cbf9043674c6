"""``wandlib evaluate``: recordings and what they say, texts that cannot be spoken, and runs that end early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
import soundfile
import tiny_codec_lm
from fake_system import FakeSystem
from typer.testing import CliRunner, Result

from wandlib.cli import app as cli
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.report import Report
from wandlib.evaluation.voices import OWN_VOICE


@pytest.fixture(autouse=True)
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wandlib.systems.codec_lm.system.CONTEXT", 200)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recognizer that hears one word, whatever is said, and an encoder that knows nobody."""
    monkeypatch.setattr("wandlib.cli.evaluate.load_recognizer", lambda *_: lambda sound, rate: "one")
    monkeypatch.setattr("wandlib.cli.evaluate.load_encoder", lambda *_: Unavailable("not asked for"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, deaf: None) -> FakeSystem:
    system = FakeSystem()
    monkeypatch.setattr("wandlib.cli.options.load_system", lambda name, folder, device: system)
    return system


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("load_recognizer", "load_encoder"):
        monkeypatch.setattr(f"wandlib.cli.evaluate.{name}", lambda *_: pytest.fail("an instrument was loaded"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["evaluate", *arguments])


def refused(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_recordings_and_what_they_say(deaf: None) -> None:
    tiny_codec_lm.write("neutts", Path("checkpoint"))
    for voice in ("one.wav", "other.wav"):
        recordings.write(Path(voice), seconds=0.6)
    Path("texts.txt").write_text("YES.\n", encoding="utf-8")
    here = ("texts.txt", "--system", "neutts", "--checkpoint", "checkpoint", "-a", "window", "--json", "out.json")
    voices = ("--speaker", "one.wav", "--transcript", "YOU.", "--speaker", "other.wav", "--transcript", "ME.")
    result = run(*here, *voices)
    assert result.exit_code == 0, result.output
    assert [u.speaker for u in Report.from_json("out.json").utterances] == ["one.wav", "other.wav"]


def test_a_system_may_need_no_recording(deaf: None) -> None:
    tiny_codec_lm.write("llasa", Path("checkpoint"))
    Path("texts.txt").write_text("YES.\n", encoding="utf-8")
    here = ("--system", "llasa", "--checkpoint", "checkpoint", "-a", "window", "--top-k", "5")
    result = run("texts.txt", *here, "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert [u.speaker for u in Report.from_json("out.json").utterances] == [OWN_VOICE]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "cannot be spoken: NeuTTS needs a reference and what it says"),
        (["--speaker", "voice.wav"], "cannot be spoken by voice.wav: a reference needs its transcript"),
        (["--speaker", "voice.wav", "--transcript", "a", "--transcript", "b"], "in the same order, not 2 for 1"),
        (["--transcript", "a"], "in the same order, not 1 for 0"),
        (["--set", "pitch"], "--set 'pitch' is not name=value"),
        (["--set", "pitch=high"], "no setting named 'pitch'"),
        (["--set", "top_k=3"], "has the option --top-k"),
        (["--set", "transcript=a"], "has the option --transcript"),
        (["--speaker", "nan.wav", "--transcript", "a"], "holds NaN or infinite samples: export it again"),
    ],
)
def test_what_cannot_be_spoken_is_one_line(arguments: list[str], words: str, nothing_loaded: None) -> None:
    tiny_codec_lm.write("neutts", Path("checkpoint"))
    recordings.write(Path("voice.wav"))
    soundfile.write("nan.wav", np.full(32_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    assert words in refused("--system", "neutts", "--checkpoint", "checkpoint", *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--recognizer pocketsphinx --recognizer-model foo", "--recognizer-model has no effect with --recognizer"),
        ("--encoder-model bar", "--encoder-model has no effect with --encoder resemblyzer"),
        ("-a full -w 4", "--window has no effect with --attention full alone"),
        ("-a full --student folder", "--student has no effect with --attention full alone"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(arguments: str, words: str, nothing_loaded: None) -> None:
    assert words in refused(*arguments.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("-s clara --transcript hello", "error: --transcript: mini has no use for what a recording says: leave it out"),
        ("-s clara --window 0", "error: a window holds at least 1 key"),
        ("-s clara --set pitch=high", "error: there is no setting named 'pitch'"),
    ],
)
def test_a_wrong_setting_is_not_blamed_on_the_text(arguments: str, words: str, nothing_loaded: None) -> None:
    Path("texts.txt").write_text("Good morning.\n", encoding="utf-8")
    assert words in refused("texts.txt", *arguments.split())


def test_a_text_that_the_system_refuses_is_named_with_its_line(nothing_loaded: None) -> None:
    Path("texts.txt").write_text("# two\nGood morning.\n\nSee <b>this</b> now.\n", encoding="utf-8")
    said = refused("texts.txt", "-s", "clara")
    assert "line 4 of 'texts.txt': 'See <b>this</b> now.' cannot be spoken by clara: the text holds the tag" in said


def test_a_text_in_which_the_recognizer_knows_no_words_is_named_with_its_line(
    fake: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ear:
        def normalize(self, text: str) -> str:
            return text.replace("Hmm", "")

        def __call__(self, sound: Any, rate: int) -> str:
            return "one"

    monkeypatch.setattr("wandlib.cli.evaluate.load_recognizer", lambda *_: Ear())
    Path("texts.txt").write_text("one\nHmm\n", encoding="utf-8")
    assert "line 2 of 'texts.txt': reference 'Hmm' has no words" in refused("texts.txt")
    assert fake.steps_made == 0


def test_a_report_is_not_written_over(fake: FakeSystem) -> None:
    Path("texts.txt").write_text("one two\n", encoding="utf-8")
    Path("out.json").write_text("precious", encoding="utf-8")
    assert "'out.json' exists" in refused("texts.txt", "--json", "out.json")
    assert Path("out.json").read_text(encoding="utf-8") == "precious"
    assert run("texts.txt", "--json", "out.json", "--force").exit_code == 0
    assert len(Report.from_json("out.json").utterances) == 4


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_what_was_measured_outlives_the_run(
    fake: FakeSystem, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def listen(sound: Any, rate: int) -> str:
        if len(heard) == 3:
            raise kind
        heard.append("one")
        return "one"

    monkeypatch.setattr("wandlib.cli.evaluate.load_recognizer", lambda *_: listen)
    Path("texts.txt").write_text("one\none two\n", encoding="utf-8")
    result = run("texts.txt", "--json", "out.json")
    assert result.exit_code != 0
    assert "this is of 3 of 8 utterances" in result.stderr
    assert "utterances" in result.stdout
    assert "Difference" not in result.stdout
    assert len(Report.from_json("out.json").utterances) == 3
    assert [path.name for path in Path().glob("*out.json*")] == ["out.json"]


def test_conditions_without_a_common_score_have_no_difference(
    fake: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score is of the pitch, which is higher under the window."""

    def score(sound: Any, rate: int) -> dict[str, float]:
        low = np.count_nonzero(np.diff(sound >= 0)) / 2 / (len(sound) / rate) % 100 < 35
        return {"LOW": 1.0} if low else {}

    monkeypatch.setattr("wandlib.evaluation.mos.mos_predictors", lambda *_: {"low": score})
    Path("texts.txt").write_text("one two\n", encoding="utf-8")
    result = run("texts.txt", "-s", "low")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].split() == ["LOW", "nan"]
