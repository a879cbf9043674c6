"""What is written in one way and said in another: each line is read as a person would, and nothing is lost."""

from __future__ import annotations

import re
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wandlib.systems import load_system
from wandlib.systems.base import InputError
from wandlib.systems.mini import MiniSystem
from wandlib.systems.mini.reading import RULES, joined, written_out
from wandlib.systems.mini.text import MAXIMUM_CHARACTERS, Phonemizer, clauses

SAID = [
    # Roman numerals, and what only looks like them.
    ("Henry VIII and World War II", "Henry the 8th and World War 2"),
    ("Chapter IV: the part I wrote", "Chapter 4: the part I wrote"),
    ("Part I was long, Type C was not", "Part I was long, Type C was not"),
    ("Louis XIV's Apollo XI and an IV drip", "Louis the 14th's Apollo 11 and an I V drip"),
    ("Sixtus IV, Edmund II, Pius X, Malcolm X", "Sixtus the 4th, Edmund the 2nd, Pius the 10th, Malcolm X"),
    ("James V. Forrestal", "James V. Forrestal"),
    ("factor XIII, The II Corps, WW II, XX", "factor 13, The 2 Corps, WW 2, XX"),
    ("Mary I know, Chapter Like, Class Civic", "Mary I know, Chapter Like, Class Civic"),
    # Money.
    ("$5.00, $100,000.00, $1.00", "5 dollars, 100,000 dollars, 1 dollar"),
    ("$.50 and £.05", "50 cents and 5 pence"),
    ("$5-10, £10–20, $5-$6", "5 to 10 dollars, 10 to 20 pounds, 5 to 6 dollars"),
    ("$1984", "1,984 dollars"),
    # Times and dates.
    ("at 3:00 and 10:00 a.m. today", "at 3 o'clock and 10 a.m. today"),
    ("3:05, 3:30, 12:30-13:45", "3 oh 5, 3:30, 12:30 to 13:45"),
    ("On Dec. 25 and 5 Sept. 2007", "On December 25 and 5 September 2007"),
    ("Sat. May 5, but he sat. May 5", "Saturday May 5, but he sat. May 5"),
    ("12/25/2007, 31/12/2007, 2007-12-25", "December 25th, 2007, December 31st, 2007, December 25th, 2007"),
    ("13/13/2007", "13/13/2007"),
    # Years, decades, ordinals.
    ("In 1776, 1905, 1900, 2024 and 2005.", "In 17 76, 19 oh 5, 19 hundred, 20 24 and 2005."),
    ("1984 but 1,984 and 1984.5 and 19845", "19 84 but 1,984 and 1984.5 and 19845"),
    ("the 1990s, the '60s, in his 20s, the 2000s", "the 19 nineties, the sixties, in his twenties, the 2 thousands"),
    ("100th, 1000th, 1,000,000th, 112th", "1 hundredth, 1 thousandth, 1 millionth, 112th"),
    # Fractions, ranges, telephones, signs.
    ("1/2 cup, 2 1/2 hours, 3/4, 24/7, and/or", "1 half cup, 2 and 1 half hours, 3 quarters, 24 7, and/or"),
    ("1/16, 1/60, 9/11, 140/90, 1/1,000", "1 sixteenth, 1 over 60, 9 11, 140/90, 1/1,000"),
    ("12:00 o'clock, (980-1037), 700-5000", "12 o'clock, (980 to 1037), 700 to 5000"),
    ("pages 5-10 or 5–10, 2-3-4, F-16", "pages 5 to 10 or 5 to 10, 2-3-4, F-16"),
    ("555-867-5309, (555) 867-5309, 555-1234", "5 5 5, 8 6 7, 5 3 0 9, 5 5 5, 8 6 7, 5 3 0 9, 5 5 5, 1 2 3 4"),
    ("5 - 3 = 2, #1, ~5", "5 minus 3 = 2, number 1, about 5"),
    ("~$5, ~.5, ~$", "about 5 dollars, about .5, ~$"),
    ("2^10, x², (a+b)^3, 20 m²", "2 to the power of 10, x squared, (a+b) cubed, 20 square meters"),
    # Units.
    ("5 km, 1 km, 100 km/h, 3.5kg, 1 ft", "5 kilometers, 1 kilometer, 100 kilometers per hour, 3.5 kilograms, 1 foot"),
    ("10 lbs. of it, 5 m tall, 747s, 5G", "10 pounds of it, 5 meters tall, 747s, 5G"),
    # Abbreviations.
    ("fruit, e.g., apples, i.e. these", "fruit, for example apples, that is these"),
    ("apples, etc., are; apples etc. are; etc.", "apples, etc, are; apples etc are; etc."),
    ("Col. Smith at Mt. Everest", "Colonel Smith at Mount Everest"),
    ("Ms. Lee, Gen. Lee Jr. and Prof. Lee, Ph.D.", "Miz Lee, General Lee Junior and Professor Lee, P H D."),
    ("approx. 5, ca. 1900, w/o it", "approximately 5, circa 19 hundred, without it"),
    ("5th Ave. is. 5th Ave. Then", "5th Avenue is. 5th Avenue. Then"),
    ("Main St. is by St. Paul", "Main Street is by St. Paul"),
    ("See fig. 3, no. 5, pp. 3-5. I said no.", "See figure 3, number 5, pages 3 to 5. I said no."),
    # Markdown.
    ("**very**, _so_, ***both***, `code`, ~~out~~", "very, so, both, code, out"),
    ("**bold _and_ slanted**", "bold and slanted"),
    ("**Bold that goes on,", "Bold that goes on,"),
    ('and "ends here.**"', 'and "ends here."'),
    ("2 ** 3, a**b, the A*", "2 ** 3, a**b, the A*"),
    ("[the docs](https://a.example/b) say.[1] So.² Yes", "the docs say. So. Yes"),
    ("snake_case_name, 5 * 3 * 2, a*b*c", "snake_case_name, 5 * 3 * 2, a*b*c"),
]


@pytest.mark.parametrize(("text", "said"), SAID)
def test_what_is_said(text: str, said: str) -> None:
    assert written_out(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1. Milk\n2. Eggs", "1. Milk. 2. Eggs"),
        ("- Milk\n* Eggs\n• Tea", "Milk. Eggs. Tea"),
        ("# Title\nThe story begins here, in a long line.", "Title. The story begins here, in a long line."),
        ("Dear Ann\n\nThank you!\n\n\nBob", "Dear Ann. Thank you! Bob"),
        ("milk\neggs\nbread and butter", "milk, eggs, bread and butter"),
        ("#1 is a song\nthat all know", "#1 is a song that all know"),
        ("One.\n\n* * *\n\nTwo.", "One. Two."),
        ("Yes,\nshe said.", "Yes, she said."),
        (
            "a line that was cut where it\nwas full, and goes on in the\nnext",
            "a line that was cut where it was full, and goes on in the next",
        ),
        ("-5 degrees\n\n", "-5 degrees"),
        ("\r\nOne\r\n\r\nTwo\r\n", "One. Two"),
        (
            "a title\n\na line that was cut\nwhere it was full, and\nso on",
            "a title. a line that was cut where it was full, and so on",
        ),
        ("", ""),
    ],
)  # fmt: skip
def test_lines(text: str, said: str) -> None:
    assert joined(text) == said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in the U.S., people", [("in the U.S", ","), ("people", ".")]),
        ("until 5 p.m., or 6 p.m.; both", [("until 5 p.m", ","), ("or 6 p.m", ","), ("both", ".")]),
        ("«Stop.» Then", [("«Stop", "."), ("» Then", ".")]),
        ("don´t, won`t, ain\u02bct", [("don't", ","), ("won't", ","), ("ain't", ".")]),
        ("LET US GO NOW! THE US! It", [("LET us GO NOW", "!"), ("THE US", "!"), ("It", ".")]),
    ],
)
def test_clauses_end_where_a_speaker_stops(text: str, expected: list[tuple[str, str]]) -> None:
    assert clauses(text) == expected


@pytest.fixture(scope="module")
def tts() -> MiniSystem:
    system = load_system("mini")
    assert isinstance(system, MiniSystem)
    return system


def words(symbols: list[str]) -> list[str]:
    """The words of symbols, marks gone."""
    return [word for word in "".join(s for s in symbols if s not in ",.?!").split(" ") if word]


@pytest.mark.parametrize(
    ("text", "word", "count"),
    [
        (" ".join(["1777"] * 100), "1777", 100),
        (" ".join(["WWW"] * 100), "WWW", 100),
        ("/".join(["tree"] * 200), "tree", 200),
        (" ".join(["1,777,777"] * 60), "1,777,777", 60),
        ("7" * 50, "7", 50),
        ("😀" * 50, "😀", 50),
    ],
)
def test_of_a_dense_text_nothing_is_dropped(text: str, word: str, count: int) -> None:
    """espeak-ng stops at about a thousand phones in a clause, or a hundred in a word, and says nothing."""
    phonemize = Phonemizer()
    read, one = words(phonemize(text)), words(phonemize(word))
    assert sum(read[place] == one[0] for place in range(len(read))) >= count
    assert len(read) >= count * len(one)


def test_the_digits_of_pi_are_all_read() -> None:
    phonemize = Phonemizer()
    digits = "14159265358979323846264338327950288419716939937510"
    assert phonemize(f"3.{digits}") == phonemize(f"three point {' '.join(digits)}")


def test_sixty_years_are_all_read(tts: MiniSystem) -> None:
    phonemize = Phonemizer()
    years = [str(year) for year in range(1950, 2010)]
    read = phonemize("\n".join(years))
    expected = [words(phonemize(year)) for year in years]
    assert words(read) == [word for year in expected for word in year]


def test_a_piece_ends_with_a_sentence_and_not_with_a_line(tts: MiniSystem) -> None:
    """A book that is cut into lines: the parts of 8,000 characters are those of the text in one line."""
    sentence = "Dr. Jones and Mr. Smith walked along the quiet road that led towards the sea, and they said nothing. "
    text = sentence * 80
    assert tts.parts(textwrap.fill(text, 70)) == tts.parts(text)


SIGNS = ".,:;!?-–/#~^$£*_`'\"()[]\n "


@settings(max_examples=200, deadline=None)
@given(st.text("xyz" + SIGNS, max_size=60))
def test_letters_come_through_whatever_stands_around_them(text: str) -> None:
    assert re.findall("[xyz]", written_out(joined(text))) == re.findall("[xyz]", text)


@settings(max_examples=200, deadline=None)
@given(st.text("aIVXth0123456789" + SIGNS, max_size=60))
def test_no_rule_fails_and_no_text_vanishes(text: str) -> None:
    assert any(map(str.isalnum, written_out(joined(text)))) == any(map(str.isalnum, text))


@pytest.mark.parametrize(
    "unit",
    ["1-", "1/2 ", "$1", "*a", "_a_", "`", "[a](", "1,000", "12:00-", "XI", "I ", "no. 1 ", "555-", "a ", "'60s"],
)
def test_no_text_takes_long(unit: str) -> None:
    text = (unit * MAXIMUM_CHARACTERS)[:MAXIMUM_CHARACTERS]
    started = time.process_time()
    written_out(joined(text))
    assert time.process_time() - started < 0.5


def test_rules_are_tried_in_their_order() -> None:
    assert len(RULES) > 30
    assert written_out("$1,250 in 1984") == "1,250 dollars in 19 84"


def test_one_clause_in_another_script_does_not_end_a_stream(tts: MiniSystem) -> None:
    """It is read as in a whole text; what is mostly in another script so far is refused."""
    texts = ["Say hello.\n", "你好\n", "Then go on.\n"]
    spoken = b"".join(sound.tobytes() for sound in tts.stream(texts, attention="window"))
    assert len(spoken) > 4 * 16_000 * 2
    with pytest.raises(InputError, match=r"mostly in another script \(Chinese\)"):
        list(tts.stream(["你好。今天天气很好。\n", "Hello.\n"]))
