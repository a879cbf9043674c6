"""Files that are either old or new, never half written, and what stays in results that are measured again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Name a file to write, which becomes ``path`` once the block has ended without an error."""
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    yield partial
    partial.replace(path)


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write a value; whatever ends the program, the file is whole."""
    with whole(path) as partial:
        partial.write_text(json.dumps(value, indent=indent), encoding="utf-8")


def slug_of(name: str) -> str:
    """Make a name for files."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def mark_of(*depends_on: object) -> str:
    """Make the part of a file's name that says what its content depends on."""
    return hashlib.sha256(repr(depends_on).encode()).hexdigest()[:8]


def written_before(path: Path, voice: str, *names: str) -> dict[str, Any]:
    """Return what somebody wrote by hand into results under ``names``, if they are of the same voice."""
    before = json.loads(path.read_text(encoding="utf-8"))
    return {name: before[name] for name in names if name in before} if before.get("voice") == voice else {}
