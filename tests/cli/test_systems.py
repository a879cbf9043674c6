"""A published folder to a student that speaks, and back into its own files: the commands, on tiny checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
import soundfile
import tiny_codec_lm
import tiny_corpora
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import SETTINGS, WRITERS
from typer.testing import CliRunner

import wandlib
from wandlib.attention.conversion import hook_of
from wandlib.cli import app as cli
from wandlib.cli.options import LIMIT_STATUS
from wandlib.systems import InputError
from wandlib.systems.cosyvoice2.tiny import write_tiny
from wandlib.systems.indextts import tiny as tiny_index
from wandlib.systems.indextts.language_model import IndexLM
from wandlib.systems.registry import TRAINING, training_of
from wandlib.systems.sparktts import tiny as tiny_spark
from wandlib.systems.training import TenSeconds

STEPS = 20


def torch_file(path: Path) -> dict[str, torch.Tensor]:
    content = torch.load(path, weights_only=True)
    return content.get("model", content)


def folder_of_safetensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


@dataclass
class Case:
    """What `export` makes of a student, and which file or folder of the checkpoint that is."""

    exported: str
    original: str
    read: Callable[[Path], dict[str, torch.Tensor]]
    untouched: str = ""
    """A tensor that training cannot reach."""


CASES = {
    "cosyvoice2": Case("llm.pt", "llm.pt", torch_file),
    "sparktts": Case("LLM", "LLM", folder_of_safetensors),
    "indextts": Case("gpt.pth", "gpt.pth", torch_file, untouched="text_head.weight"),
    "neutts": Case("neutts-air", ".", folder_of_safetensors),
    "llasa": Case("Llasa-1B", ".", folder_of_safetensors),
}


@pytest.fixture(autouse=True)
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wandlib.systems.sparktts.system.MAXIMUM_TOKENS", 60)
    monkeypatch.setattr("wandlib.systems.codec_lm.system.CONTEXT", 300)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, list(arguments))
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, list(arguments))
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_every_case_is_here() -> None:
    assert CASES.keys() == TRAINING.keys()


@pytest.mark.parametrize("name", CASES)
def test_from_recordings_to_a_student_that_speaks_and_back(name: str) -> None:
    case = CASES[name]
    WRITERS[name](Path("folder"))
    tiny_corpora.write(Path("corpus"), count=5)
    voice = recordings.write(Path("voice.wav"))
    here = ("--system", name, "--checkpoint", "folder")
    assert "5 utterances" in run("prepare", *here, "--data", "corpus", "--to", "data", "--shard", "3")
    options = ("--steps", str(STEPS), "-b", "4", "--learning-rate", "1e-3", "--cpu", "--log-steps", "5")
    window = ("--window", "5", "--window-start", "8")
    run("train", *here, "--data", "data", "--output", "student", *options, *window)
    log = json.loads(next(Path("student").glob("checkpoint-*/trainer_state.json")).read_text())["log_history"]
    losses = [line["ce"] for line in log if "ce" in line]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0], "nothing was learned"
    assert hook_of(wandlib.load("student")).window == 5

    tts = wandlib.load_system(name, "folder", student="student")
    assert tts.window == 5
    spoken = [tts.synthesize("HI.", voice, attention, **SETTINGS[name]) for attention in ("full", "window")]
    assert spoken[1].trace.window == 5
    assert all(len(speech.waveform) for speech in spoken)
    plain = wandlib.load_system(name, "folder").synthesize("HI.", voice, "full", **SETTINGS[name])
    assert np.array_equal(spoken[0].codes, plain.codes), "the teacher's place was taken"

    said = run("export", "student", case.exported, "--to", name)
    assert "under full attention" in said
    before, after = case.read(Path("folder") / case.original), case.read(Path(case.exported))
    assert before.keys() == after.keys()
    assert all(before[key].dtype == after[key].dtype for key in before)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert case.untouched not in changed
    assert f"license: {training_of(name).base.license}" in Path("student/README.md").read_text()


@pytest.mark.parametrize("name", CASES)
def test_a_student_that_learned_nothing_is_the_original_bit_for_bit(name: str) -> None:
    case = CASES[name]
    WRITERS[name](Path("folder"))
    wandlib.convert(training_of(name).language_model("folder"), window=4).save_pretrained("student")
    run("export", "student", case.exported, "--to", name, "--checkpoint", "folder")
    before, after = case.read(Path("folder") / case.original), case.read(Path(case.exported))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    if Path(case.exported).is_dir():
        original = Path("folder") / case.original / "config.json"
        assert (Path(case.exported) / "config.json").read_bytes() == original.read_bytes()


def test_say_with_a_student() -> None:
    write_tiny(Path("folder"))
    training = training_of("cosyvoice2")
    wandlib.convert(training.language_model("folder"), window=4).save_pretrained("student")
    recordings.write(Path("voice.wav"))
    here = ("--system", "cosyvoice2", "--checkpoint", "folder", "--student", "student")
    run("say", "Hello.", *here, "--reference", "voice.wav", "-o", "out.wav")
    samples, rate = soundfile.read("out.wav")
    assert rate == 24_000
    assert len(samples) > 1000


def test_lora_and_bf16() -> None:
    """What a smaller GPU takes: adapters, merged in the end; bfloat16 leaves weights in float32."""
    tiny_index.write_checkpoint(Path("folder"))
    tiny_corpora.write(Path("corpus"), count=4)
    here = ("--system", "indextts", "--checkpoint", "folder")
    run("prepare", *here, "--data", "corpus", "--to", "data")
    usual = ("--steps", "2", "-b", "2", "--cpu", "--window", "5", "--learning-rate", "1e-2")
    run("train", "data", *here, "-o", "lora", "--lora", "2", *usual)
    run("train", "data", *here, "-o", "half", "--bf16", *usual)
    before = training_of("indextts").language_model("folder").state_dict()
    for output in ("lora", "half"):
        after = wandlib.load(output).state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert any(name.startswith("gpt.h.") for name in changed)
        assert "text_head.weight" not in changed
        assert all(tensor.dtype == torch.float32 for tensor in after.values() if tensor.is_floating_point())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "data", "-o", "out"], "give --model, or --system with the --checkpoint of one"),
        (["train", "data", "-o", "out", "--system", "cosyvoice2"], "or --system with the --checkpoint of one"),
        (["train", "-o", "out", "--model", "m"], "nothing to train on"),
        (["train", "empty", "-o", "out", "--model", "m"], "no utterances.jsonl in 'empty'"),
        (["train", "half", "-o", "out", "--model", "m"], "go on with the same wandlib prepare"),
        (["train", "empty", "-o", "out", "--system", "mini", "--checkpoint", "."], "no system named 'mini' can be"),
        (
            ["prepare", "--system", "cosyvoice2", "--checkpoint", "none", "--data", "empty", "--to", "x"],
            "no folder 'none'",
        ),
        (["prepare", "--system", "sparktts", "--checkpoint", "empty", "--data", ".", "--to", "x"], "no config.yaml"),
        (["prepare", "--system", "indextts", "--checkpoint", "index", "--data", ".", "--to", "x"], "no dvae.pth"),
        (["prepare", "--system", "cosy", "--checkpoint", "cosy", "--data", "empty", "--to", "x"], "no utterances"),
        (["export", "none", "llm.pt", "--to", "cosyvoice"], "no folder 'none'"),
        (["export", "empty", "llm.pt", "--to", "cosyvoice"], "no config.json in 'empty'"),
        (["export", "empty", "LLM", "--to", "sparktts"], "give its folder, --checkpoint"),
        (["export", "empty", "taken", "--to", "cosyvoice"], "'taken' exists"),
        (["export", "spark", "llm.pt", "--to", "cosyvoice"], "is a student of sparktts"),
        (["export", "spark", "LLM", "--to", "sparktts"], "'spark/training.json' is broken ('checkpoint')"),
        (["export", "broken", "LLM", "--to", "sparktts"], "'broken/training.json' is broken"),
    ],
)
def test_what_cannot_be_used(arguments: list[str], words: str) -> None:
    for folder in ("empty", "half", "spark", "broken"):
        Path(folder).mkdir()
    Path("half/prepare.json").write_text("{}")
    Path("spark/training.json").write_text('{"system": "sparktts"}')
    Path("broken/training.json").write_text('["sparktts"')
    Path("taken").touch()
    if "cosy" in arguments:
        write_tiny(Path("cosy"))
    if "index" in arguments:
        tiny_index.write_checkpoint(Path("index"))
        Path("index/dvae.pth").unlink()
    assert words in refused(*arguments)


def test_what_is_written_over_stays_until_the_new_file_is_whole() -> None:
    """The published gpt.pth may itself be the target; where the export fails, what was there is there still."""
    tiny_index.write_checkpoint(Path("folder"))
    Path("folder/gpt.pth").replace("folder/kept.pth")
    before = Path("folder/kept.pth").read_bytes()
    Path("folder/gpt.pth").write_bytes(before)
    wandlib.convert(training_of("indextts").language_model("folder"), window=4).save_pretrained("student")
    here = ("export", "student", "folder/gpt.pth", "--to", "indextts", "--checkpoint")
    assert "'folder/gpt.pth' exists" in refused(*here, "folder")
    Path("folder/config.yaml").rename("config.yaml")
    assert "no config.yaml" in refused(*here, "folder", "--force")
    assert Path("folder/gpt.pth").read_bytes() == before
    Path("config.yaml").rename("folder/config.yaml")
    run(*here, "folder", "--force")
    written, kept = torch_file(Path("folder/gpt.pth")), torch_file(Path("folder/kept.pth"))
    assert all(torch.equal(written[name], kept[name]) for name in kept)
    assert not list(Path("folder").glob(".*"))
    assert "is a folder, which is not written over" in refused(*here[:2], "folder", *here[3:], "folder", "--force")


def test_a_student_takes_config_and_tokenizer_and_no_other_weights() -> None:
    """An original may store the tied head a second time, and lie beside its weights in other forms."""
    tiny_codec_lm.write("neutts", Path("folder"))
    model: Any = training_of("neutts").language_model("folder")
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = json.loads(Path("folder/config.json").read_text())
    Path("folder/config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    save_file(stored, "folder/model.safetensors", metadata={"format": "pt"})
    for name in ("neutts-air-Q4.gguf", "pytorch_model.bin", "LICENSE"):
        Path("folder", name).touch()
    tied = training_of("neutts").language_model("folder")
    wandlib.convert(tied, window=4).save_pretrained("student")
    said = run("export", "student", "neutts-air", "--to", "neutts", "--checkpoint", "folder")
    assert "in the place of the language model of neuphonic/neutts-air" in said
    written = folder_of_safetensors(Path("neutts-air"))
    assert stored.keys() == written.keys()
    assert all(torch.equal(stored[name], written[name]) for name in stored)
    names = {path.name for path in Path("folder").iterdir() if path.is_file()}
    assert {path.name for path in Path("neutts-air").iterdir()} == names - {"neutts-air-Q4.gguf", "pytorch_model.bin"}


def test_a_rounded_student_is_not_written_back() -> None:
    write_tiny(Path("folder"))
    model = training_of("cosyvoice2").language_model("folder")
    model.to(torch.bfloat16).save_pretrained("student")
    said = refused("export", "student", "llm.pt", "--to", "cosyvoice", "--checkpoint", "folder")
    assert "is stored in bfloat16, and the original in float32" in said
    assert not Path("llm.pt").exists()


def test_a_student_of_another_size_is_not_written_back() -> None:
    write_tiny(Path("folder"))
    model: Any = training_of("cosyvoice2").language_model("folder")
    config = type(model.config)(**{**model.config.to_dict(), "num_hidden_layers": 1, "layer_types": None})
    type(model)(config).save_pretrained("student")
    said = refused("export", "student", "llm.pt", "--to", "cosyvoice", "--checkpoint", "folder")
    assert "num_hidden_layers is 1" in said


def test_other_recordings_are_of_the_speaker() -> None:
    """Spark-TTS takes a voice from other words: without a speaker it trains on nothing, and says why."""
    tiny_spark.write_checkpoint(Path("folder"))
    tiny_corpora.record(Path("a.wav"), 1.0, 0)
    Path("data.jsonl").write_text('{"audio": "a.wav", "text": "Hi."}\n')
    said = refused("prepare", "--system", "sparktts", "--checkpoint", "folder", "--data", "data.jsonl", "--to", "out")
    assert "no other recording of its speaker" in said


@pytest.mark.parametrize("name", CASES)
def test_say(name: str) -> None:
    """The command alone, as a user has it: a folder, a recording and, where the system needs it, what that says."""
    WRITERS[name](Path("folder"))
    recordings.write(Path("voice.wav"))
    here = ("--system", name, "--checkpoint", "folder", "--reference", "voice.wav")
    own = SETTINGS[name]
    options = [f"--transcript={own['transcript']}"] if "transcript" in own else []
    options += [f"--set={key}={value}" for key, value in own.items() if key != "transcript"]
    said = CliRunner().invoke(cli.app, ["say", "Hi.", *here, *options, "-o", "out.wav"])
    assert said.exit_code in (0, LIMIT_STATUS), said.output
    samples, rate = soundfile.read("out.wav")
    assert len(samples) > 1000
    expected = wandlib.load_system(name, "folder").synthesize("Hi.", "voice.wav", "window", **own)
    assert rate == expected.sample_rate
    assert len(samples) == len(expected.waveform)
    if name == "cosyvoice2":
        both = run("compare", "Hi.", *here, "--transcript", "You.", "-o", "both")
        assert "median step" in both


def test_say_many_with_transcripts_and_settings_of_their_own() -> None:
    tiny_spark.write_checkpoint(Path("folder"))
    for voice in ("a.wav", "b.wav"):
        recordings.write(Path(voice))
    here = ("--system", "sparktts", "--checkpoint", "folder", "--from", "texts.jsonl", "--to", "out", "--temperature=0")
    lines = [
        {"text": "Hi.", "id": "a", "reference": "a.wav", "transcript": "You."},
        {"text": "Hi.", "id": "b", "reference": "b.wav", "transcript": "Me."},
        {"text": "Ho.", "id": "c"},
    ]
    Path("texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = CliRunner().invoke(cli.app, ["say", *here, "--set", "top_p=0.5", "--reference", "a.wav"])
    assert said.exit_code in (0, LIMIT_STATUS), said.output
    made = {entry["id"]: entry for entry in map(json.loads, Path("out/manifest.jsonl").read_text().splitlines())}
    said_by = {key: entry["settings"].get("transcript") for key, entry in made.items()}
    assert said_by == {"a": "You.", "b": "Me.", "c": None}
    assert {entry["settings"]["top_p"] for entry in made.values()} == {"0.5"}
    tts = wandlib.load_system("sparktts", "folder")
    alone = tts.synthesize("Hi.", "b.wav", "window", temperature=0, top_p=0.5, transcript="Me.")
    assert made["b"]["codes"] == len(alone.codes)
    Path("texts.jsonl").write_text(json.dumps({"text": "Hi.", "reference": "b.wav"}))
    assert "one of their own" in refused("say", *here, "--transcript", "You.", "--reference", "a.wav")
    Path("texts.jsonl").write_text(json.dumps({"text": "Hi.", "set": {"tone": "high"}}))
    assert "no setting named 'tone'" in refused("say", *here, "--force")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("pitch", "is not name=value"),
        ("=high", "is not name=value"),
        ("window=3", "has the option --window"),
        ("transcript=a", "is given already"),
        ("nothing=3", "there is no setting named 'nothing'"),
        ("normalize=no", "normalize is a bool, not 'no'"),
    ],
)
def test_settings_that_cannot_be_used(option: str, words: str) -> None:
    write_tiny(Path("folder"))
    here = ("--system", "cosyvoice2", "--checkpoint", "folder")
    assert words in refused("say", "Hi.", *here, "--transcript", "You.", "--set", option)


@pytest.mark.parametrize("name", CASES)
def test_a_student_of_another_system_or_size_is_refused(name: str) -> None:
    WRITERS[name](Path("folder"))
    other = "sparktts" if name == "cosyvoice2" else "cosyvoice2"
    WRITERS[other](Path("other"))
    training_of(other).language_model("other").save_pretrained("student")
    with pytest.raises(InputError, match="holds no language model of"):
        wandlib.load_system(name, "folder", student="student")
    with pytest.raises(FileNotFoundError, match=r"no config\.json in 'none'"):
        wandlib.load_system(name, "folder", student="none")
    teacher: Any = training_of(name).language_model("folder")
    config = type(teacher.config).from_dict({**teacher.config.to_dict(), "hidden_size": 64, "n_embd": 64})
    type(teacher)(config).save_pretrained("larger")
    with pytest.raises(InputError, match=r"has hidden_size 64, the language model of .* made of another"):
        wandlib.load_system(name, "folder", student="larger")


def test_profile_measures_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_index.write_checkpoint(Path("folder"))
    small = training_of("indextts").config("folder")
    monkeypatch.setattr("wandlib.systems.indextts.training.IndexTraining.random_model", lambda self: IndexLM(small))
    monkeypatch.setattr("wandlib.systems.indextts.training.IndexTraining.ten_seconds", TenSeconds(5, 20, 3))
    for dtype in ("float32", "bfloat16"):
        said = run("profile", "--system", "indextts", "--measure", "--steps", "4", "--warmup", "1", "--dtype", dtype)
        times = re.findall(r"step, ms: (?:full|window) (\d+\.\d)", said)
        assert len(times) == 2
        assert all(float(time) > 0 for time in times)
