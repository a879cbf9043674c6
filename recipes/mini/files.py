"""Write a file that is either old or new, never half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write a value; whatever ends the program, the file is whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=indent), encoding="utf-8")
    partial.replace(path)
