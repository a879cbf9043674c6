"""What was made of a recording, remembered: a voice speaks many texts, and is encoded once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from wandlib.systems.sound_file import is_file

Made = TypeVar("Made")

KEPT = 8
"""Recordings whose results are remembered."""


class Remembered(Generic[Made]):
    """Make something of a recording, unless it was made of the same file lately.

    Parameters
    ----------
    make
        From a recording to the result.
    """

    def __init__(self, make: Callable[[Path], Made]) -> None:
        self._make = make
        self._remembered = lru_cache(KEPT)(lambda recording, *facts: make(recording))

    def __call__(self, recording: str | Path) -> Made:
        """Return the result; what ``make`` raises comes through."""
        path = Path(recording)
        if not is_file(path):
            return self._make(path)
        facts = path.stat()
        return self._remembered(path, path.resolve(), facts.st_mtime_ns, facts.st_size)
