"""For nbval: in cells tagged "approximate" any number counts as any other; words do not, nor how many numbers there are.

What some steps of training end with, and what a recognizer hears, depends on the kind of processor: each adds up in an
order of its own. What has to be true of such numbers, the notebooks assert.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import pytest
from nbval.plugin import IPyNbCell

TAG = "approximate"
NUMBER = re.compile(r" *(?:[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?|\bnan\b)")


def without_numbers(sanitize: Callable[[object], object], said: object) -> object:
    """Sanitize as nbval does, and put N for each number."""
    said = sanitize(said)
    return NUMBER.sub(" N", said) if isinstance(said, str) else said


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take the numbers out of what is compared."""
    for item in items:
        if isinstance(item, IPyNbCell) and TAG in item.cell.metadata.get("tags", []):
            item.sanitize = functools.partial(without_numbers, item.sanitize)
