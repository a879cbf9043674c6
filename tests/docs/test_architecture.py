"""docs/architecture.md speaks of files and names that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from wandlib.systems.registry import SYSTEMS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", TEXT)


def definitions() -> dict[str, set[str]]:
    """Every class and function of the library, with the names that a class defines."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "wandlib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                members = {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
                found.setdefault(node.name, set()).update(members)
            elif isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, set())
    return found


def test_files_exist() -> None:
    named = [name for name in CODE if name.endswith((".py", "/")) and "/" in name]
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
    beside = {name for name in CODE if name.endswith(".py") and "/" not in name}
    assert {name for name in beside if not (ROOT / "wandlib" / "systems" / "mini" / name).is_file()} == set()


def test_names_are_defined() -> None:
    defined = definitions()
    for name in CODE:
        if match := re.fullmatch(r"([A-Z]\w+)(?:\.(\w+))?", name):
            assert match[1] in defined, name
            assert match[2] is None or match[2] in defined[match[1]], name


def test_the_published_systems_are_counted() -> None:
    words = ("three", "four", "five", "six", "seven")
    (counted,) = re.findall(r"the embedded voice and (\w+) published ones", TEXT)
    assert words.index(counted) + 3 == len(SYSTEMS) - 1


def test_two_pages() -> None:
    """At about 500 words a page."""
    assert len(TEXT.split()) <= 1000


def test_every_room_has_a_row() -> None:
    rooms = {path.parent.name for path in (ROOT / "wandlib").glob("*/__init__.py")}
    assert {room for room in rooms if f"| `wandlib/{room}/` |" not in TEXT} == set()
