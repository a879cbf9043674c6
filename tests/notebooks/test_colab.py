"""The extra of the notebooks leaves what a hosted runtime brings as it is."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("colab.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BROUGHT = {
    canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
    for pin in map(Requirement, (line for line in PINS.read_text().splitlines() if not line.startswith("#")))
}


def test_what_is_asked_for_takes_what_is_there() -> None:
    asked = [Requirement(line) for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["colab"]]]
    for requirement in asked:
        if version := BROUGHT.get(canonicalize_name(requirement.name)):
            assert version in requirement.specifier, f"{requirement} would replace {version}"


def test_it_brings_no_jupyter_of_its_own() -> None:
    asked = {canonicalize_name(Requirement(line).name) for line in PROJECT["optional-dependencies"]["colab"]}
    assert asked.isdisjoint({"ipykernel", "jupyterlab", "notebook", "torch", "numpy", "tensorboard"})


@pytest.mark.slow
def test_pip_changes_none_of_it(tmp_path: Path) -> None:
    """A dry run from nothing: the whole tree resolves with the runtime's versions held."""
    report = tmp_path / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    pins = [f"{name}=={version}" for name, version in BROUGHT.items()]
    run = subprocess.run([*pip, "--report", str(report), f"{ROOT}[colab]", *pins], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    chosen = {
        canonicalize_name(package["metadata"]["name"]): package["metadata"]["version"]
        for package in json.loads(report.read_text(encoding="utf-8"))["install"]
    }
    assert {name: chosen[name] for name in BROUGHT} == BROUGHT
