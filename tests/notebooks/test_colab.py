"""The notebooks' extra leaves what a hosted runtime brings as it is; `make test-colab` has pip resolve the rest."""

from __future__ import annotations

import tomllib
from importlib.metadata import requires
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


def test_what_those_ask_for_takes_it_too() -> None:
    """Down to the last dependency, at the versions of this environment."""
    waiting = [Requirement(line) for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["colab"]]]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if version := BROUGHT.get(name):
            assert version in requirement.specifier, f"{requirement} would replace {version}"
        elif (name, extras) not in seen:
            seen.add((name, extras))
            for each in map(Requirement, requires(name) or []):
                wanted = [{"extra": extra} for extra in ("", *extras)]
                if each.marker is None or any(map(each.marker.evaluate, wanted)):
                    waiting.append(each)
    assert len(seen) > 50


def test_it_brings_no_jupyter_of_its_own() -> None:
    asked = {canonicalize_name(Requirement(line).name) for line in PROJECT["optional-dependencies"]["colab"]}
    assert asked.isdisjoint({"ipykernel", "jupyterlab", "notebook", "torch", "numpy", "tensorboard"})
