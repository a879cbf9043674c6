"""The corpus writer: what is read by whom, shards that a killed run leaves whole, and Kokoro itself where it is."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recipes.mini import speech
from recipes.mini.speech import Job, Spoken, jobs
from recipes.mini.texts import Passage


def made_up() -> itertools.chain[Passage]:
    """Passages of one and of three utterances, of different lengths."""
    return itertools.chain.from_iterable(
        (Passage("one", (f"Number {n}" + " and more" * (n % 7),)), Passage("three", (f"A {n}.", f"B {n}.", f"C {n}.")))
        for n in itertools.count()
    )


def beep(job: Job) -> Spoken:
    """Noise as long as the text, the same for the same job; nothing for one job in eleven."""
    rng = np.random.default_rng(len(job.text) + job.passage)
    length = 0 if job.passage % 11 == 5 else 100 * len(job.text)
    return 240 * (job.passage % 3), rng.integers(-3000, 3000, length, dtype=np.int16)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "passages", lambda seed, held_out: made_up())
    monkeypatch.setattr(speech, "manifest", lambda seed, per_shard: {"seed": seed})
    monkeypatch.setattr(speech, "speak", beep)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[0-9]*"))}


def test_every_prefix_is_balanced_over_the_speakers() -> None:
    made = list(itertools.islice(jobs(made_up(), 0), 4000))
    for count in (400, 1000, 4000):
        spoken: Counter[str] = Counter()
        for job in made[:count]:
            spoken[job.speaker] += len(job.text) / job.speed
        assert set(spoken) == set(speech.VOICES)
        assert max(spoken.values()) - min(spoken.values()) < 100  # characters: about the longest passage, no more


def test_a_passage_has_one_speaker_and_one_speed_and_keeps_its_order() -> None:
    made = list(itertools.islice(jobs(made_up(), 0), 400))
    for _, group in itertools.groupby(made, key=lambda job: job.passage):
        rows = list(group)
        assert len({(job.speaker, job.speed) for job in rows}) == 1
        assert [job.place for job in rows] == list(range(len(rows)))
    assert {job.speed for job in made} == set(speech.SPEEDS)


@pytest.mark.usefixtures("small")
def test_a_killed_run_goes_on_to_the_same_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speech.build(tmp_path / "whole", 0.004, per_shard=20)
    expected = contents(tmp_path / "whole")
    assert len(expected) >= 6  # three shards

    calls = itertools.count()

    def dies(job: Job) -> Spoken:
        if next(calls) == 29:
            raise KeyboardInterrupt
        return beep(job)

    monkeypatch.setattr(speech, "speak", dies)
    with pytest.raises(KeyboardInterrupt):
        speech.build(tmp_path / "killed", 0.004, per_shard=20)
    assert contents(tmp_path / "killed") == {name: expected[name] for name in ("0000.flac", "0000.json")}
    (tmp_path / "killed" / "0001.partial").write_bytes(b"half a shard")
    monkeypatch.setattr(speech, "speak", beep)
    speech.build(tmp_path / "killed", 0.004, per_shard=20)
    assert contents(tmp_path / "killed") == expected
    assert len((tmp_path / "killed" / "log.txt").read_text().splitlines()) == len(expected) // 2


@pytest.mark.usefixtures("small")
def test_a_shard_holds_what_its_list_says(tmp_path: Path) -> None:
    speech.build(tmp_path, 0.001, per_shard=20)
    content = json.loads((tmp_path / "0000.json").read_text())
    sound, rate = soundfile.read(tmp_path / "0000.flac", dtype="int16")
    assert rate == 24_000
    rows = list(itertools.islice(jobs(made_up(), 0), 20))
    spoken = [job for job in rows if len(beep(job)[1])]
    assert content["left out"] == 20 - len(spoken) > 0
    for job, entry in zip(spoken, content["utterances"], strict=True):
        assert (entry["text"], entry["speaker"], entry["speed"]) == (job.text, job.speaker, job.speed)
        cut, noise = beep(job)
        assert entry["cut"] == cut
        np.testing.assert_array_equal(sound[entry["start"] : entry["end"]], noise)


@pytest.mark.usefixtures("small")
def test_a_folder_of_another_seed_is_refused(tmp_path: Path) -> None:
    speech.build(tmp_path, 0.001, per_shard=20)
    with pytest.raises(ValueError, match=r"0000\.flac holds other texts or speakers .* choose another folder"):
        speech.build(tmp_path, 0.001, seed=1, per_shard=20)


@pytest.mark.usefixtures("small")
def test_two_runs_cannot_write_to_one_folder(tmp_path: Path) -> None:
    with speech.locked(tmp_path), pytest.raises(RuntimeError, match="another run is writing to"):
        speech.build(tmp_path, 0.001)
