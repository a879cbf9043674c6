"""From speech to training shards: rate, level, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recipes.mini import corpus, hearing
from recipes.mini.speech import Job, write_shard
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.reference import LEVEL

TEXTS = ("One came home.", "Two came home.", "Three came home.", "Um.", "Alone at last.")
PLACES = ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0))


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A shard of five tones at 24 kHz, each of another pitch and length."""
    folder = tmp_path / "speech"
    folder.mkdir()
    batch = [
        Job(text, "clara", 1.1, "prose", passage, place) for text, (passage, place) in zip(TEXTS, PLACES, strict=True)
    ]
    time = np.arange(24_000) / 24_000
    sounds = [
        (8000 * np.sin(2 * np.pi * (200 + 100 * n) * time[: 12_000 + 2400 * n])).astype(np.int16) for n in range(5)
    ]
    write_shard(folder, 0, batch, [(0, sound) for sound in sounds])
    return folder


def transcribe(folder: Path, heard: list[str]) -> None:
    (folder / "0000.heard.json").write_text(json.dumps(heard), encoding="utf-8")


def test_training_shards_have_the_voices_rate_and_level(spoken: Path, tmp_path: Path) -> None:
    corpus.build(spoken, tmp_path / "corpus", workers=1)
    made = corpus.read_shards(tmp_path / "corpus")
    assert [said.text for said in made] == list(TEXTS)
    for number, said in enumerate(made):
        samples = said.samples
        assert said.seconds == pytest.approx(0.5 + 0.1 * number, abs=0.02)
        assert np.sqrt((samples**2).mean()) == pytest.approx(LEVEL, rel=0.03)
        peak = np.argmax(np.abs(np.fft.rfft(samples))) * SAMPLE_RATE / len(samples)
        assert peak == pytest.approx(200 + 100 * number, abs=3)
        assert (said.speaker, said.speed, said.source) == ("clara", 1.1, "prose")
        assert (said.passage, said.place) == PLACES[number]


def test_what_was_not_understood_is_left_out(spoken: Path, tmp_path: Path) -> None:
    transcribe(spoken, ["one came home", "without you", "3 came home!", "Um...", "alone, at last"])
    corpus.build(spoken, tmp_path / "corpus", workers=1)
    made = corpus.read_shards(tmp_path / "corpus")
    assert [said.text for said in made] == [TEXTS[i] for i in (0, 2, 3, 4)]


def test_finished_shards_are_kept(spoken: Path, tmp_path: Path) -> None:
    corpus.build(spoken, tmp_path / "corpus", workers=1)
    stamp = (tmp_path / "corpus" / "0000.npy").stat().st_mtime_ns
    corpus.build(spoken, tmp_path / "corpus", workers=1)
    assert (tmp_path / "corpus" / "0000.npy").stat().st_mtime_ns == stamp
    with pytest.raises(FileNotFoundError, match=r"run `python -m recipes\.mini speech` first"):
        corpus.build(tmp_path / "nowhere", tmp_path / "corpus")


def test_the_summary_counts_by_speaker_and_source(spoken: Path) -> None:
    transcribe(spoken, ["one came home", "without you", "three came home", "Um", "alone at last"])
    rows = {row["of"]: row for row in hearing.summary(spoken)}
    assert set(rows) == {"clara", "prose", "all"}
    assert rows["all"]["utterances"] == 5
    assert rows["all"]["left out"] == "0.200"
    assert rows["all"]["WER"] == f"{3 / 13:.3f}"


def test_hearing_listens_once(spoken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def recognize(sound: np.ndarray, rate: int) -> str:
        calls.append((len(sound), rate))
        return "words"

    monkeypatch.setattr(hearing, "recognizer", lambda *window: recognize)
    hearing.run(spoken)
    hearing.run(spoken)
    assert calls == [(12_000 + 2400 * n, 24_000) for n in range(5) for _ in ("quick", "again")]
    assert json.loads((spoken / "0000.heard.json").read_text()) == ["words"] * 5


def test_what_was_understood_at_once_is_not_heard_again(spoken: Path) -> None:
    texts = [entry["text"] for entry in json.loads((spoken / "0000.json").read_text())["utterances"]]
    quick = iter([texts[0], "nothing of it", *texts[2:]])
    again = iter(["at the second time"])
    hearing.listen(spoken / "0000.flac", lambda *_: next(quick), lambda *_: next(again))
    assert json.loads((spoken / "0000.heard.json").read_text()) == [texts[0], "at the second time", *texts[2:]]
