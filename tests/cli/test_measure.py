"""``wandlib evaluate`` and ``wandlib profile`` as a user types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_system import FakeSystem
from tiny_models import LANGUAGE_MODELS
from transformers import WavLMConfig
from typer.testing import CliRunner

from wandlib.cli import app as cli
from wandlib.evaluation.report import Report
from wandlib.profiling.estimate import cache_bytes

QWEN2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "qwen2")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CliRunner]:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    """In place of the embedded voice, and a recognizer that hears nothing."""
    system = FakeSystem()
    monkeypatch.setattr("wandlib.cli.options.load_system", lambda name, folder, device: system)
    monkeypatch.setattr("wandlib.cli.evaluate.load_recognizer", lambda *_: lambda sound, rate: "one")
    return system


def rows(output: str) -> dict[str, list[str]]:
    """Cells of the table by the name of their row."""
    lines = [line for line in output.splitlines() if line.startswith(" ")]
    return {line[:28].strip(): line[28:].split() for line in lines}


def test_evaluate_prints_a_table_and_writes_every_utterance(run: CliRunner, fake: FakeSystem) -> None:
    Path("texts.txt").write_text("# two\none two\n\nthree four five\n", encoding="utf-8")
    result = run.invoke(cli.app, ["evaluate", "texts.txt", "--seeds", "2", "--window", "6", "--json", "out.json"])
    assert result.exit_code == 0, result.output
    assert "window 6" in result.stdout
    assert "window 6 - full" in result.stdout
    assert "similarity of low, high" in " ".join(result.stderr.split())
    report = Report.from_json("out.json")
    assert report.conditions == ["full", "window 6"]
    assert {u.text for u in report.utterances} == {"one two", "three four five"}
    assert len(report.utterances) == 2 * 2 * 2 * 2
    assert report.interval("WER", "full").value == pytest.approx(4 / 5)  # of five words "one" alone is heard


def test_evaluate_as_markdown_by_speaker(run: CliRunner, fake: FakeSystem) -> None:
    Path("texts.txt").write_text("one two", encoding="utf-8")
    result = run.invoke(cli.app, ["evaluate", "texts.txt", "-a", "full", "--markdown", "--by-speaker"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("| condition | speaker | utterances | WER |")
    assert [line.split(" | ")[1] for line in result.stdout.splitlines()[2:4]] == ["low", "high"]


def test_evaluate_reads_its_options_from_a_file(run: CliRunner, fake: FakeSystem) -> None:
    Path("texts.txt").write_text("one two", encoding="utf-8")
    Path("eval.toml").write_text(
        '[evaluate]\nspeaker = ["high"]\nseeds = 3\nattention = ["window"]\nwindow = 5\njson = "out.json"\n',
        encoding="utf-8",
    )
    result = run.invoke(cli.app, ["evaluate", "texts.txt", "--config", "eval.toml", "--window", "7"])
    assert result.exit_code == 0, result.output
    spoken = [(u.condition, u.speaker, u.seed) for u in Report.from_json("out.json").utterances]
    assert spoken == [("window 7", "high", 0), ("window 7", "high", 1), ("window 7", "high", 2)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("seed = 3", "sets seed, which evaluate does not have"),
        ("seeds = ", "cannot read 'eval.toml'"),
        ("evaluate = 3", "sets evaluate to 3: write [evaluate], a table"),
        ('seeds = "many"', "Invalid value for '--seeds'"),
    ],
)
def test_a_wrong_config_is_explained(run: CliRunner, fake: FakeSystem, content: str, words: str) -> None:
    Path("eval.toml").write_text(content, encoding="utf-8")
    result = run.invoke(cli.app, ["evaluate", "--config", "eval.toml"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no sentences in 'texts.txt': write one a line"),
        (b"fine\n- - -\n", "line 2 of 'texts.txt' has no words: '- - -'"),
        (b"one\n\none\n", "lines 1 and 3 of 'texts.txt' are the same"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_wrong_text_file_is_explained(run: CliRunner, fake: FakeSystem, content: bytes, words: str) -> None:
    Path("texts.txt").write_bytes(content)
    result = run.invoke(cli.app, ["evaluate", "texts.txt"])
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "missing.txt"], "missing.txt"),
        (["evaluate", "--json", "nowhere/out.json"], "to write 'out.json' to: make it first"),
        (["evaluate", "--speaker", "nobody"], "no speaker named 'nobody'"),
        (["evaluate", "--recognizer", "wav2vec2", "--recognizer-model", "ears"], "no ASR bundle named 'ears'"),
        (["evaluate", "--recognizer", "whisper", "--recognizer-model", "./empty"], "./empty"),
        (["profile", "--plot", "costs.gif"], "name a .svg, .png or .pdf file"),
        (["profile", "--device", "nonsense"], "no device 'nonsense' here"),
        (["profile", "./empty"], "'./empty' is no causal decoder of transformers"),
        (["profile", "./encoder"], "'./encoder' is no causal decoder of transformers"),
        (["profile", "indextts", "--steps", "5000"], "has 4096 positions, prompt and steps need 5079"),
    ],
)
def test_errors_are_one_line(run: CliRunner, arguments: list[str], words: str) -> None:
    Path("empty").mkdir()
    WavLMConfig().save_pretrained("encoder")
    result = run.invoke(cli.app, arguments)
    assert result.exit_code == 1, result.output
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_profile_of_any_config(run: CliRunner) -> None:
    QWEN2.config().save_pretrained("tiny")
    options = ["--steps", "12", "-c", "9", "-w", "4", "-b", "2", "--warmup", "1", "--json", "p.json", "--plot", "p.svg"]
    result = run.invoke(cli.app, ["profile", "tiny", *options])
    assert result.exit_code == 0, result.output
    table = rows(result.stdout)
    assert table["window, keys"] == ["all", "4"]
    assert table["steps"] == ["12", "12"]
    stored = json.loads(Path("p.json").read_text(encoding="utf-8"))
    for name, window in (("full", None), ("window", 4)):
        held = cache_bytes(QWEN2.config(), conditioning=9, generated=12, window=window, batch=2)
        assert stored[name]["cache_bytes"][-1] == held
        assert len(stored[name]["milliseconds"]) == 12
    assert Path("p.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_profile_of_the_embedded_voice(run: CliRunner) -> None:
    result = run.invoke(cli.app, ["profile", "-n", "3", "-c", "5", "-w", "2", "--warmup", "0"])
    assert result.exit_code == 0, result.output
    full, window, ratio = map(float, rows(result.stdout)["attention, GFLOPs on paper"])
    assert full >= window
    assert ratio >= 1


def test_a_missing_package_is_named_with_its_cure(
    run: CliRunner, fake: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    result = run.invoke(cli.app, ["evaluate"])
    assert result.exit_code == 1
    assert "jiwer" in result.output
    assert "pip install 'wandlib[all]'" in " ".join(result.output.split())


@pytest.mark.parametrize(("command", "option"), [("evaluate", "--recognizer"), ("profile", "--conditioning")])
def test_help(run: CliRunner, command: str, option: str) -> None:
    result = run.invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert option in result.output
