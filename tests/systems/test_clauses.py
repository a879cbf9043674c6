"""Clauses of a text that comes in pieces: cut by the text alone, in bounded memory, with what was complete kept."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wandlib.systems import InputError
from wandlib.systems.clauses import LONGEST, clauses

WORDS = st.sampled_from(
    [
        "Dr. ",
        "Smith",
        "one",
        " ",
        ". ",
        ", ",
        "! ",
        "?",
        "\n",
        " - ",
        "3.5",
        "…",
        "’",
        "a" * 90,
        "你好。",
        "e.g. ",
        "— ",
        "no. ",
        "&amp; ",
        "\t",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, max_size=60), st.data())
def test_the_cut_does_not_depend_on_the_pieces(words: list[str], data: st.DataObject) -> None:
    text = "".join(words) + " end"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert list(clauses(pieces)) == list(clauses([text])) == list(clauses(text[n] for n in range(len(text))))


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, max_size=60))
def test_no_letter_is_lost_and_none_is_too_long(words: list[str]) -> None:
    text = "".join(words) + " end"
    found = list(clauses([text]))
    assert [c for clause in found for c in clause if c.isalnum()] == [c for c in text if c.isalnum()]
    assert max(map(len, found)) <= LONGEST


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
        ("Dr. Smith went home. He slept.", ["Dr. Smith went home.", "He slept."]),
        ("It costs 3.50 euros. Really...  yes.", ["It costs 3.50 euros.", "Really...", "yes."]),
        ('"Go!" she said. "Why?"', ['"Go!"', 'she said.', '"Why?"']),
        ("Short, whole. " + "x" * 60 + ", cut, not again", ["Short, whole.", "x" * 60 + ",", "cut, not again"]),
        ("A line\nand another", ["A line", "and another"]),
        ("你好。今天", ["你好。", "今天"]),
        ("Notes\n— first", ["Notes", "— first"]),
        ("See Fig. 3 and no. 5 on Dec. 25. Go on.", ["See Fig. 3 and no. 5 on Dec. 25.", "Go on."]),
        ("**Bold.** «Stop.» Then", ["**Bold.**", "«Stop.»", "Then"]),
        ("x" * 60 + " Smith &amp; Wesson, and so on", ["x" * 60 + " Smith &amp; Wesson,", "and so on"]),
        ("*** ... One. ***", ["One."]),
    ],
)  # fmt: skip
def test_where_clauses_end(text: str, expected: list[str]) -> None:
    assert list(clauses([text])) == expected


def test_a_clause_comes_as_soon_as_it_is_known() -> None:
    taken = []

    def pieces() -> Iterator[str]:
        for piece in ("Hel", "lo the", "re. ", "And mo", "re."):
            taken.append(piece)
            yield piece

    found = clauses(pieces())
    assert next(found) == "Hello there."
    assert taken == ["Hel", "lo the", "re. "]
    assert list(found) == ["And more."]


@pytest.mark.parametrize("pieces", [[], [""], [" ", "\n"], ["...", "!!"]])
def test_nothing_to_say(pieces: list[str]) -> None:
    with pytest.raises(InputError, match="yielded nothing to say"):
        list(clauses(pieces))


def test_what_was_complete_comes_before_the_error() -> None:
    def broken() -> Iterator[str]:
        yield "One is whole. This one is n"
        raise ConnectionError("the model went away")

    found = clauses(broken())
    assert next(found) == "One is whole."
    with pytest.raises(ConnectionError, match="went away"):
        next(found)


@pytest.mark.parametrize("unit", ["word ", "x", "!", "Word. "])
def test_a_hundred_megabytes_take_no_memory(unit: str) -> None:
    """Of one piece, the first clauses come at once, and little is held beside it; what says nothing is left behind."""
    text = unit * ((300_000 if unit == "!" else 100_000_000) // len(unit)) + " end"
    tracemalloc.start()
    found = list(islice(clauses([text]), 3))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000
    assert len(found) == (1 if unit == "!" else 3)
    assert max(map(len, found)) <= LONGEST
