"""Notebook 13 where it is told to take real data: what it makes of a folder like LibriTTS. No weights are needed."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from wandlib.systems.corpora import find_recordings

PATH = Path(__file__).parents[2] / "notebooks" / "13_a_real_system.ipynb"
CODE = [
    "".join(cell["source"])
    for cell in json.loads(PATH.read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
]


def branch(word: str) -> str:
    """The body of the one ``if REAL:`` that says a word."""
    bodies = [
        "\n".join(map(ast.unparse, node.body))
        for source in CODE
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "REAL"
    ]
    (found,) = [body for body in bodies if word in body]
    return found


@pytest.mark.parametrize(("recordings", "listed"), [(3, 3), (1203, 500)])
def test_500_recordings_of_all_speakers(
    recordings: int, listed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(recordings):
        folder = tmp_path / "LibriTTS" / "train-clean-100" / f"{number % 3}" / "7"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:04d}.wav").touch()
        (folder / f"{number:04d}.normalized.txt").write_text(f"Sentence {number}.\n")
    monkeypatch.chdir(tmp_path)
    names = {"Path": Path, "json": json, "runs": tmp_path}
    exec(branch("train-clean-100"), names)
    found = find_recordings(tmp_path / "corpus.jsonl")
    assert len(found) == listed
    assert all(recording.audio.is_file() for recording in found)
    assert {recording.speaker for recording in found} == {"0", "1", "2"}
    assert all(recording.text == f"Sentence {int(recording.audio.stem)}." for recording in found)


def test_half_precision_is_for_a_gpu_and_the_steps_are_as_the_prose_says() -> None:
    (training,) = [source for source in CODE if "WandTrainingArguments" in source]
    assert 'fp16=REAL and device == "cuda",' in training
    size = 4
    assert f"per_device_train_batch_size={size}," in training
    assert "gradient_accumulation_steps" not in training
    prose = PATH.read_text(encoding="utf-8")
    assert f"three epochs there are {(500 - 20) // size * 3} steps" in prose
