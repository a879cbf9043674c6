"""No recording of a corpus may end a preparation: what a system cannot take is left out, with the reason."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_corpora
import torch
from tiny_checkpoints import WRITERS

from wandlib.systems import InputError
from wandlib.systems.codec_lm.reference import CodecReader
from wandlib.systems.corpora import find_recordings
from wandlib.systems.preparation import claim, prepare
from wandlib.systems.registry import TRAINING

TEXTS = {
    "symbols": "?! …",
    "tag": "words <|endofprompt|> words",
    "open tag": "a <| b",
    "half of a character": "cut \ud83d here",
    "lines": "one\ntwo\r\nthree\n\n",
    "many digits": "1" * 60 + " and 3.50",
    "brackets": r"[a] \ {b} <c> & % # ~ ` ^ _ | \n \0",
    "control": "a\x00b\x07c\u200bd\ufeff",
    "foreign": "안녕하세요 नमस्ते 你好 سلام",
    "emoji": "hello 👩‍👩‍👧 you",
    "digits of others": "१२३ ٣٤",
    "a mark": "ʼ",
    "dashes": "-1 - 2--3 — $5.5.5, e@f.g http://h.i/j?k=1",
}

LINES = [
    '{"audio": "good.wav", "text": "one\u2028two\u0085three\u2029four\x0cfive\tsix"}'.encode(),
    b'\xef\xbb\xbf{"audio": "good.wav", "text": "words"}\r',
    b'{"audio": "good.wav", "text": "caf\xe9"}',
    b'{"audio": "good\xe9.wav", "text": "words"}',
    b'{"audio": 5, "text": "words"}',
    b'{"audio": null, "text": "5"}',
    b'{"audio": ["good.wav"], "text": "words"}',
    b'{"audio": "good.wav", "text": null}',
    b'{"audio": "", "text": "words"}',
]


def odd_sounds(folder: Path) -> list[Path]:
    """Write what is hard to read, and name what is not there."""
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) / 10
    for samples in (0, 1, 150, 200, 201, 399, 1000, 4000):
        soundfile.write(folder / f"{samples}.wav", noise[:samples], 16_000)
    for rate in (1000, 4000, 11_025, 192_000):
        soundfile.write(folder / f"at{rate}.wav", noise, rate)
    soundfile.write(folder / "nan.wav", np.where(noise > 0.2, np.nan, noise), 16_000, subtype="FLOAT")
    soundfile.write(folder / "loud.wav", noise * 1e30, 16_000, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", 0 * noise, 16_000)
    soundfile.write(folder / "many.wav", np.tile(noise[:, None], 9), 16_000)
    soundfile.write(folder / "whole.flac", noise, 16_000)
    cut = (folder / "whole.flac").read_bytes()
    (folder / "cut.flac").write_bytes(cut[: len(cut) // 2])
    (folder / "words.wav").write_text("no sound")
    (folder / "folder.wav").mkdir()
    return [*sorted(folder.iterdir()), folder / "none.wav", folder / "half\ud83d.wav"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every text and every sound twice: as the utterance, and as the other recording of its speaker."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "sounds").mkdir()
    good = tiny_corpora.record(folder / "good.wav", 1.0, 0)
    pairs = [(good, text) for text in TEXTS.values()] + [(sound, "Words.") for sound in odd_sounds(folder / "sounds")]
    lines: list[dict[str, Any]] = []
    for number, (audio, text) in enumerate(pairs):
        lines += [{"audio": str(audio), "text": text, "speaker": number}]
        lines += [{"audio": str(good), "text": "Good words.", "speaker": number}]
    data = folder / "data.jsonl"
    data.write_bytes(b"\n".join([*(json.dumps(line).encode() for line in lines), *LINES]))
    return data


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TRAINING)
def test_no_recording_ends_a_preparation(
    name: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CodecReader, "__call__", cache(CodecReader.__call__))  # the same sound 50 times, for minutes
    WRITERS[name](tmp_path / "folder")
    made = prepare(name, tmp_path / "folder", corpus, tmp_path / "out", progress=False)
    assert made.path is not None
    lines = len(corpus.read_bytes().splitlines())
    assert made.utterances + sum(made.skipped.values()) == lines
    assert made.utterances > lines / 4
    assert made.skipped["no audio that can be read"] > 2
    assert made.skipped["half of a character or NUL in its text, or another encoding than UTF-8"] == 3


def test_each_line_is_read_by_itself(tmp_path: Path) -> None:
    """In each form of a corpus: only the ends of lines of bytes end one, and what is no UTF-8 spoils its own alone."""
    data = tmp_path / "data.jsonl"
    data.write_bytes(b"\n".join(LINES))
    found = find_recordings(data)
    assert [recording.text for recording in found] == [
        "one\u2028two\u0085three\u2029four\x0cfive\tsix", "words", "caf\udce9", "words", "words", "5", "words", "",
        "words",
    ]  # fmt: skip
    assert found[1].audio == tmp_path / "good.wav"
    folder = tmp_path / "LJ"
    folder.mkdir()
    (folder / "metadata.csv").write_bytes("\ufeff\na|one\u2028two\x0c\n/|three\n".encode() + b"b|caf\xe9|caf\xe9")
    found = find_recordings(folder)
    assert [recording.audio.name for recording in found] == ["a.wav", ".wav", "b.wav"]
    assert [recording.text for recording in found] == ["one\u2028two", "three", "caf\udce9"]
    tiny_corpora.record(tmp_path / "LibriTTS" / "a.wav", 1.0, 0)
    (tmp_path / "LibriTTS" / "a.normalized.txt").write_bytes(b"caf\xe9\n")
    assert [recording.text for recording in find_recordings(tmp_path / "LibriTTS")] == ["caf\udce9"]


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('\n{"audio": "a.wav", "text": "one\u2028two"}\n{"audio": "b.wav", "te', encoding="utf-8")
    with pytest.raises(InputError, match=r"line 3 of data\.jsonl is not"):
        find_recordings(data)


@pytest.mark.parametrize("text", [["Hello", "there"], {"en": "x"}, True, 5])
def test_a_text_that_is_no_string_is_named_with_its_line(tmp_path: Path, text: Any) -> None:
    data = tmp_path / "data.jsonl"
    lines = [{"audio": "a.wav", "text": "one"}, {"audio": "b.wav", "text": text}]
    data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(InputError, match=rf"line 2 of data\.jsonl is not .*{re.escape(repr(text))}, not a string"):
        find_recordings(data)


def test_a_recording_whose_file_comes_later_is_not_left_out_for_good(tmp_path: Path) -> None:
    """Nor is one whose speaker's other recording comes later; a shard whose recordings are as they were is kept."""
    WRITERS["sparktts"](tmp_path / "folder")
    for name in ("a", "b", "d", "e"):
        tiny_corpora.record(tmp_path / f"{name}.wav", 1.0, ord(name))
    (tmp_path / "f.wav").write_text("no sound")
    lines = [{"audio": f"{name}.wav", "text": "Words.", "speaker": name in "abc"} for name in "abcdef"]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

    def made() -> tuple[int, int]:
        out = prepare(
            "sparktts", tmp_path / "folder", tmp_path / "data.jsonl", tmp_path / "out", shard=3, progress=False
        )
        return out.utterances, sum(out.skipped.values())

    utterances, skipped = made()
    assert utterances + skipped == 6
    shards = sorted((tmp_path / "out").glob("shard-*.jsonl"))
    before = [shard.stat().st_mtime_ns for shard in shards]
    assert made() == (utterances, skipped)
    assert [shard.stat().st_mtime_ns for shard in shards] == before
    tiny_corpora.record(tmp_path / "c.wav", 1.0, 2)
    after, left = made()
    assert after + left == 6
    assert after > utterances
    assert {json.loads(line)["audio"] for line in shards[0].read_text().splitlines() if "skipped" in line} == set()
    assert shards[0].stat().st_mtime_ns > before[0]
    assert shards[1].stat().st_mtime_ns == before[1]


def test_too_little_memory_is_said_with_the_cure(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    WRITERS["sparktts"](tmp_path / "folder")
    monkeypatch.setattr("wandlib.systems.sparktts.reference.ReferenceReader.codes", full)
    with pytest.raises(InputError, match=r"too little memory: fewer recordings at once \(--batch-size\)"):
        prepare("sparktts", tmp_path / "folder", corpus, tmp_path / "out", progress=False)


def test_a_file_of_another_origin_is_not_replaced(tmp_path: Path) -> None:
    """The corpus itself may be a utterances.jsonl in the folder that is written to."""
    mine = tmp_path / "utterances.jsonl"
    mine.write_text('{"audio": "a.wav", "text": "my only transcripts"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="is not of wandlib prepare, and would be replaced: choose another folder"):
        claim(tmp_path, {"system": "sparktts"})
    assert "my only transcripts" in mine.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
