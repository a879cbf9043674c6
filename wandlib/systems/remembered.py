"""What was made of a recording, remembered: a voice speaks many texts, and is encoded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

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
        self._made: dict[tuple[str, int, int], Made] = {}

    def __call__(self, recording: str | Path) -> Made:
        """Return the result; what ``make`` raises comes through."""
        path = Path(recording)
        if not path.is_file():
            return self._make(path)
        facts = path.stat()
        key = (str(path.resolve()), facts.st_mtime_ns, facts.st_size)
        made = self._made.pop(key) if key in self._made else self._make(path)
        self._made[key] = made  # the one used last is last
        while len(self._made) > KEPT:
            del self._made[next(iter(self._made))]
        return made
