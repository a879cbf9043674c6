"""``accelerate launch -m wandlib``: two processes share the work, and make what one makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_corpora
from launching import launch

from wandlib.systems.cosyvoice2.tiny import write_tiny

pytestmark = pytest.mark.slow


def alone(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "wandlib", *map(str, arguments)], check=True)


def test_prepare_and_train(tmp_path: Path) -> None:
    checkpoint = write_tiny(tmp_path / "checkpoint")
    system = ("--system", "cosyvoice2", "--checkpoint", checkpoint)
    data = ("--data", tiny_corpora.write(tmp_path / "LibriTTS"), "--shard", 2)
    launch("-m", "wandlib", "prepare", *system, *data, "--to", tmp_path / "two")
    alone("prepare", *system, *data, "--to", tmp_path / "one")
    made = [(tmp_path / name / "utterances.jsonl").read_text(encoding="utf-8") for name in ("two", "one")]
    assert made[0] == made[1] != ""

    student = tmp_path / "student"
    short = ("--batch-size", 2, "--cpu")
    launch("-m", "wandlib", "train", *system, "--data", tmp_path / "two", "--output", student, *short)
    assert (student / "model.safetensors").is_file()
    assert (student / "training.json").is_file()


def test_say(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"Word {n}."}) + "\n" for n in range(3)), encoding="utf-8")
    launch("-m", "wandlib", "say", "--from", texts, "--to", tmp_path / "two")
    alone("say", "--from", texts, "--to", tmp_path / "one")
    names = sorted(path.name for path in (tmp_path / "one").glob("*.wav"))
    assert len(names) == 3
    for name in names:
        two, one = (soundfile.read(tmp_path / folder / name)[0] for folder in ("two", "one"))
        np.testing.assert_allclose(two, one, atol=1e-3)  # the batches are others
    manifests = [(tmp_path / "two" / f"manifest-{rank}.jsonl").read_text(encoding="utf-8") for rank in (0, 1)]
    assert [len(manifest.splitlines()) for manifest in manifests] == [2, 1]
