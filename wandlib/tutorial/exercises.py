"""Exercises of the notebooks: an answer is tested, and a wrong one gets a hint, then a second one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

_attempts: Counter[str] = Counter()


def check(answer: Any, right: Callable[[Any], Any], first: str, second: str) -> None:
    """Print whether an answer is right; if not, print a hint.

    Parameters
    ----------
    answer
        What the reader wrote: a value, or a function. ``...`` is a blank that is not yet filled in.
    right
        Test of the answer. It may return whether the answer is right, or assert it. Whatever it raises is printed and
        counts as wrong: an answer may have any type, and a function of the reader's may fail in any way.
    first, second
        Hints for the first wrong answer, and for every later one.
    """
    problem = ""
    if answer is not ...:
        try:
            if _truth(right(answer)):
                _attempts.pop(first, None)
                print("Right.")  # noqa: T201
                return
        except AssertionError as error:
            problem = str(error).strip().split("\n")[0]
        except Exception as error:  # a reader's code may raise anything, and the notebook should go on
            problem = f"it raised {type(error).__name__}: {error}".strip().split("\n")[0]
    _attempts[first] += 1
    print(f"Not yet{': ' + problem if problem else '.'}")  # noqa: T201
    print(f"First hint: {first}" if _attempts[first] == 1 else f"Second hint: {second}")  # noqa: T201


def _truth(outcome: Any) -> bool:
    """Return whether a test passed: one that only asserts returns None."""
    return outcome is None or bool(outcome)
