"""The store of results: what is kept, for how long, and how it is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from app import sounds
from app.sounds import KEPT_RUNS, SoundStore


def finished(store: SoundStore, visitor: str) -> sounds.Saved:
    run = store.new(visitor, 16_000, ["full"])
    run.append("full", np.ones(10, np.float32))
    store.finish(run, {"text": "x"}, {}, "")
    return run


def test_samples_are_clipped_and_appended(tmp_path: Path) -> None:
    run = SoundStore(tmp_path).new("visitor", 16_000, ["full"])
    run.append("full", np.array([0.0, 0.5], np.float32))
    run.append("full", np.array([-3.0, 3.0], np.float32))
    assert np.frombuffer(run.pcm("full").read_bytes(), "<i2").tolist() == [0, 16383, -32767, 32767]


def test_a_visitor_keeps_the_last_ones_and_others_theirs(tmp_path: Path) -> None:
    store = SoundStore(tmp_path)
    other = finished(store, "other")
    runs = [finished(store, "visitor") for _ in range(KEPT_RUNS + 3)]
    assert store.of("visitor") == runs[: -KEPT_RUNS - 1 : -1]
    assert [run.folder.exists() for run in runs] == [False] * 3 + [True] * KEPT_RUNS
    assert store.of("other") == [other]


def test_after_an_hour_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SoundStore(tmp_path)
    old = finished(store, "visitor")
    speaking = store.new("visitor", 16_000, ["full"])
    old.born -= sounds.KEPT_SECONDS + 1
    speaking.born -= sounds.KEPT_SECONDS + 1
    store.expire()
    assert not old.folder.exists()
    assert speaking.folder.exists(), "a run that goes on is not cut"


def test_all_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "ALL_RUNS", 5)
    store = SoundStore(tmp_path)
    for number in range(9):
        finished(store, f"visitor {number}")
    assert store.folder is not None
    assert len(list(store.folder.iterdir())) == 5


def test_what_is_sent_of_a_run_ends_when_it_is_dropped(tmp_path: Path) -> None:
    store = SoundStore(tmp_path)
    run = store.new("visitor", 16_000, ["full"])
    run.append("full", np.ones(10, np.float32))

    async def listen() -> list[bytes]:
        sent = []
        async for block in sounds._grow(run, "full"):
            sent.append(block)
            store.drop(run)
        return sent

    assert len(asyncio.run(asyncio.wait_for(listen(), 60))) == 1


def test_names_cannot_be_guessed(tmp_path: Path) -> None:
    store = SoundStore(tmp_path)
    names = {store.new("visitor", 16_000, ["full"]).name for _ in range(20)}
    assert len(names) == 20
    assert min(map(len, names)) >= 20


def test_close_removes_all(tmp_path: Path) -> None:
    store = SoundStore(tmp_path)
    finished(store, "visitor")
    store.close()
    assert list(tmp_path.iterdir()) == []
