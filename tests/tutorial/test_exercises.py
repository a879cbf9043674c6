"""Exercises: two hints, and no answer that crashes the check."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wandlib.tutorial import check


def ask(answer: Any, name: str) -> None:
    check(answer, lambda it: abs(it - 4) < 1e-9, f"{name}: count again", "two and two")


def test_right_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    ask(4, "at once")
    assert capsys.readouterr().out == "Right.\n"


def test_a_first_and_then_a_second_hint(capsys: pytest.CaptureFixture[str]) -> None:
    for answer in (..., 5, 6):
        ask(answer, "twice")
    assert capsys.readouterr().out.splitlines() == [
        *("Still blank.", "First hint: twice: count again"),
        *("Not yet.", "Second hint: two and two"),
        *("Not yet.", "Second hint: two and two"),
    ]


def unwritten(n: int) -> Any:
    return ...  # comments do not count


def unwritten_pieces(n: int) -> Any:
    yield ...


class UnwrittenRing:
    def __init__(self) -> None: ...


def last(x: torch.Tensor) -> torch.Tensor:
    return x[..., -1]


class Ring:
    slots = ...

    def __init__(self) -> None:
        self.keys = ...


@pytest.mark.parametrize("answer", [..., unwritten, unwritten_pieces, UnwrittenRing, (1, ...)])
def test_what_is_blank_is_not_run(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    check(answer, pytest.fail, f"blank {answer}", "n * n")
    assert capsys.readouterr().out.startswith("Still blank.\nFirst hint")


@pytest.mark.parametrize("answer", [last, Ring, lambda n: ..., eval("lambda n: ..."), type(last)])
def test_what_is_written_is_run(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    check(answer, lambda it: it is answer, f"written {answer}", "n * n")
    assert capsys.readouterr().out == "Right.\n"


def test_a_right_answer_starts_anew(capsys: pytest.CaptureFixture[str]) -> None:
    for answer in (5, 4, 5):
        ask(answer, "anew")
    assert capsys.readouterr().out.count("First hint") == 2


@pytest.mark.parametrize("answer", [None, "four", [4], {}, object(), lambda: 4, torch.ones(3), float("nan"), print])
def test_no_type_crashes_it(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ask(answer, f"type {type(answer)}")
    assert capsys.readouterr().out.startswith("Not yet")


def test_it_says_what_the_readers_own_function_raised(capsys: pytest.CaptureFixture[str]) -> None:
    check(lambda n: {}[n], lambda answer: answer(3) == 9, "square it: raises", "n * n")
    assert "Not yet: it raised KeyError: 3" in capsys.readouterr().out


def test_a_test_that_only_asserts(capsys: pytest.CaptureFixture[str]) -> None:
    def nine(answer: Any) -> None:
        assert answer(3) == 9, "it should give 9 for 3"

    check(lambda n: n + n, nine, "square it: asserts", "n * n")
    check(lambda n: n * n, nine, "square it: asserts", "n * n")
    said = capsys.readouterr().out
    assert "Not yet: it should give 9 for 3" in said
    assert said.endswith("Right.\n")
