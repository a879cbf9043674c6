"""Files that are either old or new, never half written, and what stays of results when they are measured again."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Name a file to write, of this process alone, which becomes ``path`` once the block has ended without an error."""
    partial = path.with_name(f"{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write a value; whatever ends the program, the file is whole."""
    with whole(path) as partial:
        partial.write_text(json.dumps(value, indent=indent), encoding="utf-8")


PROVENANCE = ("machine", "date")
"""Of results that were measured before: they stay where nothing is measured anew."""


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


def pack(archive: Path, folder: Path, files: Iterable[Path]) -> None:
    """Keep files under their paths in ``folder``; the same files give the same archive, whenever it is written."""
    with whole(archive) as partial, zipfile.ZipFile(partial, "w") as packed:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # of no time
            packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)


def unpack(archive: Path, folder: Path, files: Iterable[Path]) -> None:
    """Write those of ``files`` that are missing and that :func:`pack` kept; others in the archive are left alone."""
    if not archive.exists():
        return
    with zipfile.ZipFile(archive) as packed:
        kept = set(packed.namelist())
        for path in files:
            name = path.relative_to(folder).as_posix()
            if name in kept and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole(path) as partial:
                    partial.write_bytes(packed.read(name))
