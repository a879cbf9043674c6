"""``wandlib profile``: the memory of training the embedded voice, and files that are not written over."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import tiny_codec_lm
from transformers import MambaConfig, MixtralConfig
from typer.testing import CliRunner

from wandlib import load_system
from wandlib.cli import app as cli
from wandlib.cli.profile import IGNORED, profile

SHORT = ["profile", "-n", "2", "-c", "3", "-w", "2", "--warmup", "0"]


def test_memory_of_training_is_of_the_embedded_voice_by_default() -> None:
    result = CliRunner().invoke(cli.app, ["profile", "--train"])
    assert result.exit_code == 0, result.output
    assert "mini, batch 1 x 512 tokens" in result.stdout
    weights = 4 * load_system("mini").language_model.num_parameters() / 1e9
    (line,) = [line for line in result.stdout.splitlines() if "weights, float32" in line]
    assert line.split()[-2:] == [f"{weights:.2f}", "GB"]


def test_memory_of_training_is_of_the_checkpoint_that_is_given(tmp_path: Path) -> None:
    tiny_codec_lm.write("llasa", tmp_path)
    given = CliRunner().invoke(cli.app, ["profile", "llasa", "--train", "--checkpoint", str(tmp_path)])
    assert given.exit_code == 0, given.output
    assert "llasa, batch 1 x 512 tokens" in given.stdout
    without = CliRunner().invoke(cli.app, ["profile", "llasa", "--train"])
    assert without.exit_code == 1
    assert "llasa comes without weights: give the folder of its checkpoint" in " ".join(without.output.split())


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, [*SHORT, str(tmp_path / "missing")])
    assert result.exit_code == 1
    assert f"error: no folder {tmp_path / 'missing'}: give a folder with a config.json" in result.output


@pytest.mark.parametrize(("option", "name"), [("--json", "p.json"), ("--plot", "p.svg")])
def test_what_was_measured_is_not_written_over(
    option: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("precious", encoding="utf-8")
    refused = CliRunner().invoke(cli.app, [*SHORT, option, name])
    assert refused.exit_code == 1
    assert f"{name!r} exists" in " ".join(refused.output.split())
    assert Path(name).read_text(encoding="utf-8") == "precious"
    assert CliRunner().invoke(cli.app, [*SHORT, option, name, "--force"]).exit_code == 0
    assert Path(name).read_text(encoding="utf-8") != "precious"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--system cosyvoice2 --json x.json", "--json has no effect with --system"),
        ("--system cosyvoice2 --measure --window 64", "--window has no effect with --system"),
        ("mini --system cosyvoice2", "MODEL has no effect with --system"),
        ("--system cosyvoice2 --steps 5", "--steps has no effect with --system and without --measure"),
        ("--train --plot y.svg", "--plot has no effect with --train"),
        ("--train --dtype bfloat16", "--dtype has no effect with --train"),
        ("mini --train --system cosyvoice2", "MODEL has no effect with --train of --system"),
        ("--measure", "--measure has no effect without --system"),
        ("--lora 5", "--lora has no effect without --train"),
        ("--no-bf16", "--bf16 has no effect without --train"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(arguments: str, words: str) -> None:
    result = CliRunner().invoke(cli.app, ["profile", *arguments.split()])
    assert result.exit_code == 1, result.output
    assert words in " ".join(result.output.split())


def test_a_default_in_a_file_may_be_for_another_way(tmp_path: Path) -> None:
    (tmp_path / "profile.toml").write_text("lora = 5\nsteps = 2\n", encoding="utf-8")
    assert CliRunner().invoke(cli.app, ["profile", "--config", str(tmp_path / "profile.toml")]).exit_code == 0


def test_every_option_is_used_in_some_way_of_profiling() -> None:
    """A new option has to be entered in the table of those that are ignored, or is obeyed by all."""
    parameters = set(inspect.signature(profile).parameters)
    assert set().union(*IGNORED.values()) < parameters
    always = parameters - set().union(*IGNORED.values())
    assert always == {"context", "train", "system", "config"}


def test_a_decoder_that_can_have_no_window_is_one_line(tmp_path: Path) -> None:
    MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, state_size=2).save_pretrained(tmp_path)
    result = CliRunner().invoke(cli.app, [*SHORT, str(tmp_path)])
    assert result.exit_code == 1
    assert "error: layer 0 of mamba is of type 'linear_attention'; a window needs" in " ".join(result.output.split())


def test_a_decoder_whose_training_cannot_be_computed_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Experts in bfloat16 are multiplied by an operation that refuses tensors without numbers."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    experts = {"num_key_value_heads": 2, "num_local_experts": 4}
    MixtralConfig(vocab_size=16, **sizes, **experts).save_pretrained(tmp_path)
    result = CliRunner().invoke(cli.app, ["profile", str(tmp_path), "--train", "--length", "8"])
    assert result.exit_code == 1
    assert "error: the memory of training MixtralForCausalLM cannot be computed: " in " ".join(result.output.split())
    assert not caplog.records
