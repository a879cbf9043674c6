"""The Python of docs/howto: each page runs as it stands, with what it takes for granted put there."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import wandlib

FOLDER = Path(__file__).parents[2] / "docs" / "howto"
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
TEXTS = ["The box was thrown.", "We sang all the way."]


class Player:
    """Stands for a sound card."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    def write(self, sound: Any) -> None:
        self.written.append(sound)


def words() -> Iterator[str]:
    yield from ("The tide ", "turns. ", "We sang ", "all the way.")


def run(page: str, **names: Any) -> dict[str, Any]:
    """Run the blocks of a page; return what is there afterwards."""
    blocks = BLOCK.findall((FOLDER / f"{page}.md").read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        exec(compile(block, f"docs/howto/{page}.md", "exec"), names)
    return names


def test_every_page_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {"train", "evaluate", "stream", "serve"}


@pytest.fixture
def tts() -> Any:
    return wandlib.load_system("mini")


def test_stream(tts: Any) -> None:
    player = Player()
    names = run("stream", tts=tts, player=player, streamer=words())
    assert len(player.written) > 2
    assert names["stream"].trace.first_sound_milliseconds > 0


def test_serve(tts: Any) -> None:
    made: dict[int, Any] = {}
    run("serve", tts=tts, texts=TEXTS, references=["henry", "clara"], save=made.__setitem__)
    assert sorted(made) == [0, 1]
    assert all(speech.seconds > 0.5 for speech in made.values())


@pytest.mark.slow
def test_evaluate(tts: Any) -> None:
    texts = [*TEXTS, "It is warm.", "The tide turns.", "She ran home."]  # of fewer there is no interval
    report = run("evaluate", tts=tts, texts=texts)["report"]
    assert len(report.utterances) == 2 * 2 * len(texts)
    # Not WER, as on the page: without an error in any sentence it has no interval.
    difference = report.difference("similarity", *reversed(report.conditions))
    assert difference.low <= difference.value <= difference.high


@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")  # the page is for a GPU
def test_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    teacher = Qwen2ForCausalLM(Qwen2Config(vocab_size=50, **size, **heads)).eval()
    chance = random.Random(0)
    samples = [{"input_ids": [chance.randrange(1, 50) for _ in range(60)], "conditioning": 10} for _ in range(8)]
    names = {"copy": copy, "wandlib": wandlib, "teacher": teacher, "samples": samples, "held_out": samples[:2]}
    trainer = run("train", **names)["trainer"]
    assert trainer.state.global_step >= 1
    assert wandlib.load(tmp_path / "student").config.wand["window"] == 32
