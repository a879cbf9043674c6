"""What keeps outputs of a busy machine, or of a notebook that is too slow, from being stored."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
sys.path.insert(0, str(FOLDER))
import store  # noqa: E402


def test_a_busy_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 <= store.cores_taken(0.1) <= 100
    monkeypatch.setattr(store, "cores_taken", lambda: 51.0)
    with pytest.raises(SystemExit, match=r"other programs take 51 % of the cores.*--busy"):
        store.check_quiet()
    monkeypatch.setattr(store, "cores_taken", lambda: 2.4)
    store.check_quiet()


def test_a_slow_notebook_is_refused() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} >= set(store.SECONDS)
    store.check_time("00_hear_it", 119)
    store.check_time("08_train", 179)
    with pytest.raises(SystemExit, match="00_hear_it took 121 s, its limit is 120"):
        store.check_time("00_hear_it", 121)
    with pytest.raises(SystemExit, match="its limit is 180"):
        store.check_time("11_endless", 181)


class Run:
    """Stands for nbclient: the notebook is not run."""

    def __init__(self, notebook: nbformat.NotebookNode, **options: object) -> None:
        assert options["coalesce_streams"]

    def execute(self) -> None:
        pass


@pytest.mark.parametrize(("busy", "stored"), [(False, False), (True, True)])
def test_what_is_refused_is_not_written(
    busy: bool, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "00_hear_it.ipynb"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    nbformat.write(book, path)
    before = path.read_bytes()
    monkeypatch.setattr(store, "NotebookClient", Run)
    monkeypatch.setattr(store, "solutions", lambda name: [])
    monkeypatch.setattr(store, "HERE", tmp_path)
    monkeypatch.setattr(store, "cores_taken", lambda: 60.0)
    if busy:
        store.store(path, busy=True)
    else:
        with pytest.raises(SystemExit, match="60"):
            store.store(path)
    assert (path.read_bytes() != before) == stored
    assert (tmp_path / "clean" / path.name).is_file() == stored
