"""Clauses of a text that comes in pieces: cut by the text alone, in bounded memory, with what was complete kept."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wandlib.systems import InputError
from wandlib.systems.abbreviations import DAYS, MONTHS, PLACES, TITLES
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
        "a line of a text that is broken for its width",
        "12",
        "\n- ",
        "\r\n",
        "🎉\n",
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
        ("Well done.\n🎉\nNow go on. →", ["Well done.", "🎉 Now go on."]),
        ("$\n→\n", ["$ →"]),
        ("We drove to Ft. Worth on Mon. 5 May, 6 ft. tall.", ["We drove to Ft. Worth on Mon. 5 May, 6 ft. tall."]),
        ("Steps:\n1. Open it.\n2. Close it. Done.", ["Steps:", "1. Open it.", "2. Close it.", "Done."]),
        ("It is 5. The rest is 6. So.", ["It is 5.", "The rest is 6.", "So."]),
    ],
)  # fmt: skip
def test_where_clauses_end(text: str, expected: list[str]) -> None:
    assert list(clauses([text])) == expected


WIDE = "A line of more than fifty characters is as wide as these"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{WIDE}\nare. It goes\non.", [f"{WIDE} are.", "It goes", "on."]),
        (f"He came. {WIDE[:45]}\r\n  and went.", ["He came.", f"{WIDE[:45]} and went."]),
        (f"{WIDE}\n{WIDE}\nare.", [f"{WIDE} {WIDE} are."]),
        (f"{WIDE}, as Mr.\nSmith says.", [f"{WIDE}, as Mr. Smith says."]),
        (f"{WIDE[:52]},\nand this", [f"{WIDE[:52]}, and this"]),
        (f"{WIDE} too,\nand this", [f"{WIDE} too,", "and this"]),
        (f"{WIDE}.\nAnd this", [f"{WIDE}.", "And this"]),
        (f"{WIDE}\n\nand this", [WIDE, "and this"]),
        (f"{WIDE}\n- and this", [WIDE, "- and this"]),
        (f"{WIDE}\n1. Open it.", [WIDE, "1. Open it."]),
        (f"## {WIDE}\nThe text begins.", [f"## {WIDE}", "The text begins."]),
        (f"{WIDE}\n1999 people.", [f"{WIDE} 1999 people."]),
        (f"{WIDE}\n", [WIDE]),
        ("The woods are lovely, dark and deep\nBut I have", ["The woods are lovely, dark and deep", "But I have"]),
    ],
)
def test_a_line_that_was_broken_for_its_width_goes_on(text: str, expected: list[str]) -> None:
    assert list(clauses([text])) == list(clauses(text)) == expected


@pytest.mark.parametrize("end", ["\n\n", "\n- ", "\n1.", ".\n", ", or more,\n"])
def test_a_wide_line_waits_for_no_more_than_what_the_next_one_begins_with(end: str) -> None:
    def pieces() -> Iterator[str]:
        yield WIDE + end
        raise AssertionError

    assert next(clauses(pieces())) == WIDE + end.partition("\n")[0]


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


@pytest.mark.parametrize("name", [*TITLES, *DAYS, *PLACES, *(month for month in MONTHS if month != "May")])
def test_no_clause_ends_after_a_name_that_the_voice_writes_out(name: str) -> None:
    assert list(clauses([f"This is {name}. Worth more."])) == [f"This is {name}. Worth more."]
