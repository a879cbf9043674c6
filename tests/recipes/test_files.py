"""What is kept in files: whole or not at all, and the same in an archive whenever it is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recipes.mini.files import pack, unpack, whole


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text("before", encoding="utf-8")

    def cut_off() -> None:
        with whole(path) as partial:
            partial.write_text("aft", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_that_write_the_same_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.json"
    with whole(path) as mine:
        mine.write_text("mine", encoding="utf-8")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with whole(path) as theirs:
            theirs.write_text("theirs", encoding="utf-8")
        assert mine.read_text(encoding="utf-8") == "mine"
    assert path.read_text(encoding="utf-8") == "mine"


def test_an_archive_gives_back_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    here, there, archive = tmp_path / "here", tmp_path / "there", tmp_path / "kept.zip"
    names = ["voice/one.json", "voice/two.json", "voice/three.json"]
    for name in names:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name, encoding="utf-8")
    pack(archive, here, [here / name for name in names])
    first = archive.read_bytes()
    (here / names[0]).touch()
    pack(archive, here, [here / name for name in reversed(names)])
    assert archive.read_bytes() == first
    (here / names[0]).write_text("x" * 100_000, encoding="utf-8")
    pack(tmp_path / "large.zip", here, [here / names[0]])
    assert (tmp_path / "large.zip").stat().st_size < 2_000

    (there / "voice").mkdir(parents=True)
    (there / names[0]).write_text("newer", encoding="utf-8")
    unpack(archive, there, [there / name for name in (*names[:2], "voice/four.json")])
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted((there / "voice").iterdir())}
    assert found == {"one.json": "newer", "two.json": names[1]}
    unpack(tmp_path / "none.zip", there, [there / names[2]])
    assert not (there / names[2]).exists()
