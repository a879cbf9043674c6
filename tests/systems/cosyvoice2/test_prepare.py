"""From recordings to a training set, to a student, to speech."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import wandlib
from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2 import CosyVoice2System, export_llm
from wandlib.systems.cosyvoice2.corpora import find_recordings
from wandlib.systems.cosyvoice2.folder import load_language_model, read_tensors
from wandlib.systems.cosyvoice2.model_card import write_model_card
from wandlib.systems.cosyvoice2.prepare import prepare


def record(path: Path, seconds: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 16_000))
    soundfile.write(path, samples.astype(np.float32), 16_000)


@pytest.fixture
def libritts(tmp_path: Path) -> Path:
    root = tmp_path / "LibriTTS" / "train-clean-100"
    for number in range(7):
        stem = root / str(number % 2) / "5" / f"{number % 2}_5_{number}"
        record(stem.with_suffix(".wav"), 1 + 0.2 * number, number)
        stem.with_name(stem.name + ".normalized.txt").write_text(f"Words number {'one ' * number}.\n")
    return tmp_path / "LibriTTS"


def samples(path: Path | None) -> list[dict[str, Any]]:
    assert path is not None
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_libritts(libritts: Path, checkpoint: Path, tmp_path: Path) -> None:
    made = prepare(checkpoint, libritts, tmp_path / "out", shard=3, batch=2, progress=False)
    rows = samples(made.path)
    config = load_language_model(checkpoint).config
    assert len(rows) == made.utterances == 7
    for row in rows:
        ids, prefix = row["input_ids"], row["conditioning"]
        assert (ids[0], ids[prefix - 1], ids[-1]) == (config.sos, config.task, config.end)
        assert all(config.first_text <= token < config.vocab_size for token in ids[1 : prefix - 1])
        assert all(0 <= code < config.codes for code in ids[prefix:-1])
    lengths = sorted(len(row["input_ids"]) - row["conditioning"] - 1 for row in rows)
    assert lengths == [25, 30, 35, 40, 45, 50, 55]


def test_a_stopped_run_goes_on(libritts: Path, checkpoint: Path, tmp_path: Path) -> None:
    made = prepare(checkpoint, libritts, tmp_path / "out", shard=2, progress=False)
    wanted = samples(made.path)
    shards = sorted((tmp_path / "out").glob("shard-*.jsonl"))
    assert len(shards) == 4
    kept = shards[0].stat().st_mtime_ns
    shards[2].unlink()
    (tmp_path / "out" / "utterances.jsonl").unlink()
    again = prepare(checkpoint, libritts, tmp_path / "out", shard=2, progress=False)
    assert samples(again.path) == wanted
    assert shards[0].stat().st_mtime_ns == kept, "what is complete is not made again"
    with pytest.raises(InputError, match="choose another folder"):
        prepare(checkpoint, libritts, tmp_path / "out", shard=3, progress=False)


def test_machines_share_the_shards(
    libritts: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = prepare(checkpoint, libritts, tmp_path / "out", shard=2, progress=False)
    assert first.path is None
    assert len(list((tmp_path / "out").glob("shard-*.jsonl"))) == 2
    monkeypatch.setenv("RANK", "0")
    assert prepare(checkpoint, libritts, tmp_path / "out", shard=2, progress=False).utterances == 7


@pytest.mark.slow
def test_processes_make_the_same(libritts: Path, checkpoint: Path, tmp_path: Path) -> None:
    one = prepare(checkpoint, libritts, tmp_path / "one", shard=2, progress=False)
    two = prepare(checkpoint, libritts, tmp_path / "two", shard=2, processes=2, progress=False)
    assert samples(one.path) == samples(two.path)


def test_ljspeech_and_jsonl(checkpoint: Path, tmp_path: Path) -> None:
    record(tmp_path / "LJ" / "wavs" / "a.wav", 1.0, 0)
    (tmp_path / "LJ" / "metadata.csv").write_text("a|I have 3.|I have three.\n\n")
    [found] = find_recordings(tmp_path / "LJ")
    assert (found.text, found.normalized) == ("I have three.", True)
    lines = [{"audio": "LJ/wavs/a.wav", "text": "I have three."}, {"audio": "none.wav", "text": "x"}]
    record(tmp_path / "long.wav", 31.0, 0)
    lines += [{"audio": "long.wav", "text": "x"}, {"audio": "LJ/wavs/a.wav", "text": " "}]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    one = prepare(checkpoint, tmp_path / "LJ", tmp_path / "one", progress=False)
    two = prepare(checkpoint, tmp_path / "data.jsonl", tmp_path / "two", progress=False)
    assert samples(one.path) == samples(two.path)
    assert two.skipped == {"no audio that can be read": 1, "longer than 30 s": 1, "no text": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty/readme.txt", "", "no utterances"),
        ("data.jsonl", '{"audio": "a.wav"}', r"line 1 of data.jsonl is not"),
        ("LJ/metadata.csv", "a", r"line 1 of metadata.csv has no '\|'"),
    ],
)
def test_other_corpora(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        find_recordings(path if path.suffix == ".jsonl" else path.parent)


def test_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus at"):
        find_recordings(tmp_path / "none")


@pytest.mark.slow
def test_from_recordings_to_a_student_that_speaks(
    libritts: Path, checkpoint: Path, recording: Path, tmp_path: Path
) -> None:
    made = prepare(checkpoint, libritts, tmp_path / "data", progress=False)
    teacher = load_language_model(checkpoint)
    student = wandlib.convert(load_language_model(checkpoint), window=4)
    trainer = wandlib.WandTrainer(
        model=student,
        teacher=teacher,
        args=wandlib.WandTrainingArguments(
            str(tmp_path / "run"), max_steps=20, per_device_train_batch_size=4, learning_rate=1e-3, use_cpu=True
        ),
        train_dataset=samples(made.path),
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert np.isfinite(losses).all()
    trainer.save_model(str(tmp_path / "student"))
    tts = CosyVoice2System.load(checkpoint, student=tmp_path / "student")
    assert tts.window == 4
    assert tts.synthesize("Hello there.", recording, "window").seconds > 0.5
    export_llm(tts.models["window"], tmp_path / "llm.pt")
    before, after = read_tensors(checkpoint / "llm.pt"), read_tensors(tmp_path / "llm.pt")
    assert set(before) == set(after)
    assert not torch.equal(before["llm_decoder.weight"], after["llm_decoder.weight"])


def test_model_card_credits_and_licence(tmp_path: Path) -> None:
    card = write_model_card(tmp_path, window=32, results={"WER": "1.72 %"}).read_text()
    for needed in ("license: apache-2.0", "2412.10117", "2604.08558", "CC BY 4.0", "| WER | 1.72 % |", "1.3 s"):
        assert needed in card
    assert "Not measured yet" in write_model_card(tmp_path).read_text()
