"""The notebooks' extra leaves what a hosted runtime brings as it is; `make test-colab` has pip resolve the rest."""

from __future__ import annotations

import tomllib
from pathlib import Path

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
