"""Exercises of the notebooks: an answer is tested, and a wrong one gets a hint, then a second one."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Callable
from types import FunctionType
from typing import Any

_attempts: Counter[str] = Counter()


def check(answer: Any, right: Callable[[Any], Any], first: str, second: str) -> None:
    """Print whether an answer is right; if not, print a hint.

    Parameters
    ----------
    answer
        What the reader wrote: a value, a function or a class. It is blank while it is ``...``, or a function that does
        no more than return it.
    right
        Test of the answer. It may return whether the answer is right, or assert it. Whatever it raises is printed and
        counts as wrong: an answer may have any type, and a function of the reader's may fail in any way.
    first, second
        Hints for the first wrong answer, and for every later one.
    """
    said = "Still blank."
    if not _blank(answer):
        said = "Not yet."
        try:
            if _truth(right(answer)):
                _attempts.pop(first, None)
                print("Right.")  # noqa: T201
                return
        except AssertionError as error:
            if problem := str(error).strip():
                said = f"Not yet: {problem}"
        except Exception as error:  # a reader's code may raise anything, and the notebook should go on
            said = f"Not yet: it raised {type(error).__name__}: {error}"
    _attempts[first] += 1
    print(said.strip().split("\n")[0])  # noqa: T201
    print(f"First hint: {first}" if _attempts[first] == 1 else f"Second hint: {second}")  # noqa: T201


def _truth(outcome: Any) -> bool:
    """Return whether a test passed: one that only asserts returns None."""
    return outcome is None or bool(outcome)


def _blank(answer: Any) -> bool:
    """Return whether an answer is ``...``, a function that holds nothing else, or a class or tuple with one of them."""
    if isinstance(answer, tuple):
        return any(map(_blank, answer))
    if isinstance(answer, type):
        return any(_blank(value) for value in vars(answer).values() if isinstance(value, FunctionType))
    if not isinstance(answer, FunctionType):
        return answer is ...
    try:
        definition = ast.parse(textwrap.dedent(inspect.getsource(answer))).body[0]
    except (OSError, SyntaxError):  # no source, or a lambda within a line
        return False
    return isinstance(definition, ast.FunctionDef) and all(map(_does_nothing, definition.body))


def _does_nothing(statement: ast.stmt) -> bool:
    """Return whether a statement is ``...``, ``return ...`` or ``yield ...``."""
    value = statement.value if isinstance(statement, ast.Expr | ast.Return) else None
    if isinstance(value, ast.Yield):
        value = value.value
    return isinstance(value, ast.Constant) and value.value is ...
