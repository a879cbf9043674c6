"""The examples of docs/extending.md: complete, and run as they stand."""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.tabs import TABS
from wandlib.distillation.divergences import DIVERGENCES
from wandlib.systems.registry import SYSTEMS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\S+)\.py\n")
TABLES: list[dict[str, Any]] = [DIVERGENCES, SYSTEMS, TABS]


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Tables and modules are afterwards what they were."""
    tables, modules = [dict(table) for table in TABLES], set(sys.modules)
    yield
    for table, before in zip(TABLES, tables, strict=True):
        table.clear()
        table.update(before)
    for name in set(sys.modules) - modules:
        parent, _, child = name.rpartition(".")
        if getattr(sys.modules[name], "__file__", None) is None and hasattr(sys.modules.get(parent), child):
            delattr(sys.modules[parent], child)
            del sys.modules[name]


def run(block: str, names: dict[str, Any]) -> None:
    """Run a block in ``names``; one that names a file is run as that file, or as more of it."""
    named = FILE.match(block)
    code = compile(block, "docs/extending.md", "exec")
    if named is None:
        exec(code, names)
        return
    path = named[1].replace("/", ".")
    if (ROOT / f"{named[1]}.py").is_file():
        space = {**vars(importlib.import_module(path)), "__name__": path}
    else:
        sys.modules[path] = module = types.ModuleType(path)
        parent, _, child = path.rpartition(".")
        setattr(importlib.import_module(parent), child, module)
        space = vars(module)
    before = dict(space)
    exec(code, space)
    names.update({name: value for name, value in space.items() if before.get(name) is not value})


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_examples_run() -> None:
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(TEXT)
    assert len(blocks) >= 10
    for block in blocks:
        run(block, names)


def test_the_system_of_the_page_is_greedy_where_it_is_asked_to_be() -> None:
    """A temperature of 0 is one, not none."""
    names: dict[str, Any] = {}
    for block in BLOCK.findall(TEXT.split("\n## ")[1]):
        run(block, names)
    said = [[names["tones"].synthesize("Ode", temperature=t, seed=seed) for seed in (1, 2)] for t in (0, None)]
    (greedy, again), (drawn, other) = [[speech.codes.tolist() for speech in pair] for pair in said]
    assert greedy == again
    assert drawn != other


def test_every_section_has_an_example_and_a_check() -> None:
    for section in TEXT.split("\n## ")[1:]:
        blocks = "".join(BLOCK.findall(section))
        assert FILE.search(blocks) or section.startswith("A language model"), section.splitlines()[0]
        assert "assert" in blocks, section.splitlines()[0]


def test_files_that_are_named_exist_or_are_new() -> None:
    table = re.findall(r"`([\w/]+(?:\.py|/))`", TEXT.split("\n## ")[0])
    assert len(table) >= 8
    assert [name for name in table if not (ROOT / name).exists()] == []
