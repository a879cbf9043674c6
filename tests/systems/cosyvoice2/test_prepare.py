"""From recordings to a training set: the three forms of corpora, runs that stop, several processes."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny_corpora

from wandlib.systems.base import InputError
from wandlib.systems.corpora import Recording, find_recordings
from wandlib.systems.cosyvoice2.folder import load_language_model
from wandlib.systems.preparation import prepare, shared_out


@pytest.fixture
def libritts(tmp_path: Path) -> Path:
    return tiny_corpora.write(tmp_path / "LibriTTS")


def samples(path: Path | None) -> list[dict[str, Any]]:
    assert path is not None
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_libritts(libritts: Path, checkpoint: Path, tmp_path: Path) -> None:
    made = prepare("cosyvoice2", checkpoint, libritts, tmp_path / "out", shard=3, batch=2, progress=False)
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
    made = prepare("cosyvoice2", checkpoint, libritts, tmp_path / "out", shard=2, progress=False)
    wanted = samples(made.path)
    shards = sorted((tmp_path / "out").glob("shard-*.jsonl"))
    assert len(shards) == 4
    kept = shards[0].stat().st_mtime_ns
    shards[2].unlink()
    (tmp_path / "out" / "utterances.jsonl").unlink()
    again = prepare("cosyvoice2", checkpoint, libritts, tmp_path / "out", shard=2, progress=False)
    assert samples(again.path) == wanted
    assert shards[0].stat().st_mtime_ns == kept, "what is complete is not made again"
    with pytest.raises(InputError, match="choose another folder"):
        prepare("cosyvoice2", checkpoint, libritts, tmp_path / "out", shard=3, progress=False)


def test_a_run_goes_on_with_the_same_checkpoint_and_texts_alone(
    libritts: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare("cosyvoice2", checkpoint, "LibriTTS", "out", progress=False)
    prepare("cosyvoice2", checkpoint, libritts, tmp_path / "out", progress=False)  # the same by another name
    other = shutil.copytree(checkpoint, tmp_path / "other")
    with pytest.raises(InputError, match="choose another folder"):
        prepare("cosyvoice2", other, libritts, tmp_path / "out", progress=False)
    words = next(libritts.rglob("*.normalized.txt"))
    words.write_text("Other words.")
    with pytest.raises(InputError, match="choose another folder"):
        prepare("cosyvoice2", checkpoint, libritts, tmp_path / "out", progress=False)


def test_an_error_ends_the_work_of_all_processes() -> None:
    begun = []

    def work(job: tuple[Path, list[Recording]]) -> None:
        begun.append(job)
        if job[0].name == "0":
            raise InputError("no")
        time.sleep(0.05)

    with ThreadPoolExecutor(2) as pool, pytest.raises(InputError, match="no"):
        list(shared_out(pool, 2, work, [(Path(str(number)), []) for number in range(20)]))
    assert len(begun) <= 3
    begun.clear()
    with ThreadPoolExecutor(2) as pool:
        assert len(list(shared_out(pool, 2, work, [(Path(str(number)), []) for number in range(1, 9)]))) == 8
    assert len(begun) == 8


def test_machines_share_the_shards(
    libritts: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = prepare("cosyvoice2", checkpoint, libritts, tmp_path / "out", shard=2, progress=False)
    assert first.path is None
    assert len(list((tmp_path / "out").glob("shard-*.jsonl"))) == 2
    monkeypatch.setenv("RANK", "0")
    assert prepare("cosyvoice2", checkpoint, libritts, tmp_path / "out", shard=2, progress=False).utterances == 7


@pytest.mark.slow
def test_processes_make_the_same(libritts: Path, checkpoint: Path, tmp_path: Path) -> None:
    one = prepare("cosyvoice2", checkpoint, libritts, tmp_path / "one", shard=2, progress=False)
    two = prepare("cosyvoice2", checkpoint, libritts, tmp_path / "two", shard=2, processes=2, progress=False)
    assert samples(one.path) == samples(two.path)


def test_ljspeech_and_jsonl(checkpoint: Path, tmp_path: Path) -> None:
    tiny_corpora.record(tmp_path / "LJ" / "wavs" / "a.wav", 1.0, 0)
    (tmp_path / "LJ" / "metadata.csv").write_text("a|I have 3.|I have three.\n\n")
    [found] = find_recordings(tmp_path / "LJ")
    assert (found.text, found.normalized) == ("I have three.", True)
    lines = [{"audio": "LJ/wavs/a.wav", "text": "I have three."}, {"audio": "none.wav", "text": "x"}]
    tiny_corpora.record(tmp_path / "long.wav", 31.0, 0)
    lines += [{"audio": "long.wav", "text": "x"}, {"audio": "LJ/wavs/a.wav", "text": " "}]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    one = prepare("cosyvoice2", checkpoint, tmp_path / "LJ", tmp_path / "one", progress=False)
    two = prepare("cosyvoice2", checkpoint, tmp_path / "data.jsonl", tmp_path / "two", progress=False)
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
