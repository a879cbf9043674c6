"""The cell that installs wandlib where it is missing: from a wheel, a copy of the repository, or the release."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
CELL = "".join(json.loads((ROOT / "notebooks" / "00_hear_it.ipynb").read_text(encoding="utf-8"))["cells"][2]["source"])


def asked_of_pip(folder: Path, monkeypatch: pytest.MonkeyPatch, *, returncode: int = 0) -> list[str]:
    """Run the cell in a folder, where no wandlib is installed; return what pip was to install."""
    asked: list[str] = []

    def run(command: list[str]) -> SimpleNamespace:
        assert command[:-1] == [sys.executable, "-m", "pip", "install", "--quiet"]
        asked.append(command[-1])
        return SimpleNamespace(returncode=returncode)

    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    # A kernel looks into the notebook's folder, and there a folder without __init__.py is a namespace.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: PathFinder.find_spec(name, [str(folder)]))
    monkeypatch.setattr(subprocess, "run", run)
    exec(CELL, {})
    return asked


def copy_of_the_repository(folder: Path) -> None:
    (folder / "wandlib").mkdir(parents=True)
    (folder / "wandlib" / "__init__.py").touch()


def test_the_newest_of_some_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("0.9.0", "0.10.0", "0.1.0"):
        (tmp_path / f"wandlib-{version}-py3-none-any.whl").touch()
    wheel = tmp_path / "wandlib-0.10.0-py3-none-any.whl"
    assert asked_of_pip(tmp_path, monkeypatch) == [f"{wheel}[colab]"]


def test_a_copy_of_the_repository_beside_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_of_the_repository(tmp_path / "wandlib")
    assert asked_of_pip(tmp_path, monkeypatch) == [f"{tmp_path / 'wandlib'}[colab]"]


def test_the_repository_that_the_notebook_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_of_the_repository(tmp_path)
    assert asked_of_pip(tmp_path / "notebooks", monkeypatch) == [f"{tmp_path}[colab]"]


def test_nothing_beside_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = asked_of_pip(tmp_path, monkeypatch)
    assert source.startswith("wandlib[colab] @ git+https://")


def test_where_it_is_installed_nothing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_of_the_repository(tmp_path)
    assert asked_of_pip(tmp_path, monkeypatch) == []


def test_a_failure_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="upload wandlib-"):
        asked_of_pip(tmp_path, monkeypatch, returncode=1)
