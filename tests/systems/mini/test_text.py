"""Text to phones: clauses, symbols, limits."""

import importlib.util
import subprocess
import sys
import time

import pytest

from wandlib.systems.base import InputError
from wandlib.systems.mini.prompt import BEGIN, FIRST_CODE, FIRST_SYMBOL, SPEECH, TEXT, VOCABULARY, prompt
from wandlib.systems.mini.system import split
from wandlib.systems.mini.text import (
    MAXIMUM_CHARACTERS,
    PUNCTUATION,
    SPACE,
    SYMBOLS,
    Phonemizer,
    check_script,
    clauses,
    parse_word,
    scripts_of,
)


@pytest.fixture(scope="module")
def phonemize() -> Phonemizer:
    return Phonemizer()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", [("Hello", ".")]),
        ("Dr. Smith came. He left!", [("Dr. Smith came", "."), ("He left", "!")]),
        ("It is 3.14, not 2.7", [("It is 3.14", ","), ("not 2.7", ".")]),
        ("Wait... what?!", [("Wait", "."), ("what", "?")]),
        ("one -- two; three: four", [("one", ","), ("two", ","), ("three", ","), ("four", ".")]),
        ("  \n spaced\tout  ", [("spaced out", ".")]),
        ("...!?", []),
        ("I said no. Then he left.", [("I said no", "."), ("Then he left", ".")]),
        ("It was I. We went.", [("It was I", "."), ("We went", ".")]),
        ("No. 5 is alive, p. 7 is not", [("number 5 is alive", ","), ("page 7 is not", ".")]),
        ("J. Smith saw e.g. this.", [("J. Smith saw for example this", ".")]),
        ("Well… yes", [("Well", "."), ("yes", ".")]),
    ],
)
def test_clauses(text: str, expected: list[tuple[str, str]]) -> None:
    assert clauses(text) == expected


def test_stress_moves_to_the_vowel() -> None:
    assert parse_word("ˈbɜːtʃ") == ["b", "ˈɜː", "tʃ"]
    assert parse_word("həlˈoʊ") == ["h", "ə", "l", "ˈoʊ"]


def test_every_symbol_has_one_number() -> None:
    assert len(set(SYMBOLS)) == len(SYMBOLS)
    assert FIRST_SYMBOL + len(SYMBOLS) <= FIRST_CODE
    assert VOCABULARY % 8 == 0


def test_same_words_same_phones(phonemize: Phonemizer) -> None:
    assert phonemize("I have 3 cats") == phonemize("I have three cats")
    assert phonemize("Dr. Jones") == phonemize("doctor Jones")
    assert phonemize("“Quoted”, it’s so") == phonemize('"Quoted", it\'s so')


def test_known_word(phonemize: Phonemizer) -> None:
    # espeak-ng 1.52, en-us: "smooth" is smˈuːð.
    assert phonemize("smooth") == ["s", "m", "ˈuː", "ð", "."]


def test_money_is_read_as_people_say_it(phonemize: Phonemizer) -> None:
    assert phonemize("$42.50") == phonemize("42 dollars 50")
    assert phonemize("It cost £7!") == phonemize("It cost 7 pounds!")
    assert phonemize("$5 million") == phonemize("five million dollars")
    assert phonemize("He paid $20m.") == phonemize("He paid twenty million dollars.")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("$1,250,000 or $1", "1,250,000 dollars or 1 dollar"),
        ("$10.5 and €1.125", "10.5 dollars and 1.125 euros"),
        ("$1 million to $1.25 billion", "1 million dollars to 1.25 billion dollars"),
        ("$100k to $20m", "100 thousand dollars to 20 million dollars"),
        ("£3bn and £3 bn and £1.5B", "3 billion pounds and 3 billion pounds and 1.5 billion pounds"),
        ("€2tn a year", "2 trillion euros a year"),
        ("a $5-million house", "a 5 million dollars house"),
        ("$5 monkeys", "5 dollars monkeys"),
        ("$5 in $100 notes.", "5 dollars in 100 dollars notes"),
        # What is no amount for certain is left for espeak-ng to read.
        ("$5x or $20mm", "$5x or $20mm"),
        ("$100USD", "$100USD"),
        ("$1.2.3 or $1,2345", "$1.2.3 or $1,2345"),
    ],
)
def test_amounts_are_read_with_their_magnitude_before_the_unit(text: str, read: str) -> None:
    assert clauses(text) == [(read, ".")]


def test_fractions_and_powers_keep_their_value() -> None:
    assert clauses("1½ cups, 10⁵ m²") == [("1½ cups", ","), ("10⁵ m squared", ".")]


def test_emoji_is_read_by_name(phonemize: Phonemizer) -> None:
    assert phonemize("😀") == phonemize("grinning face")


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text(phonemize: Phonemizer, text: str) -> None:
    with pytest.raises(InputError, match="empty"):
        phonemize(text)


@pytest.mark.parametrize("text", ["...", "?!", "---", "\u200b"])
def test_nothing_to_pronounce(phonemize: Phonemizer, text: str) -> None:
    assert phonemize(text) == []


def test_too_long(phonemize: Phonemizer) -> None:
    with pytest.raises(InputError, match=f"10,000 characters, the limit is {MAXIMUM_CHARACTERS:,}"):
        phonemize("a" * 10_000)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("今天天气很好", "Chinese"),
        ("Привет, как дела?", "Cyrillic"),
        ("こんにちは OK", "Hiragana"),
        ("مرحبا", "Arabic"),
        ("नमस्ते OK", "Devanagari"),
        ("Καλημέρα", "Greek"),
        ("⠓⠑⠇⠇⠕", "Braille"),
    ],
)
def test_other_scripts_are_refused_by_their_name(phonemize: Phonemizer, text: str, script: str) -> None:
    with pytest.raises(InputError, match=rf"mostly in another script \({script}\): this voice reads English"):
        phonemize(text)


@pytest.mark.parametrize(
    "text", ["naïve Łódź", "α + β = γ", "the name 中文 here", "Ｈｅｌｌｏ", "𝐁𝐨𝐥𝐝 words", "42", "½ €"]
)
def test_latin_letters_and_signs_are_read(text: str) -> None:
    check_script(scripts_of(text))


@pytest.mark.parametrize(
    "tag",
    [
        "<speak>",
        "</b>",
        '<break time="500ms"/>',
        "<br />",
        "<img src=x alt='y'>",
        "<!-- note -->",
        '<?xml version="1"?>',
        "<video controls src='a'>",
        "<input disabled>",
        "<OPTION SELECTED>",
        "<script async src=x></script>",
    ],
)
def test_tags_are_refused(phonemize: Phonemizer, tag: str) -> None:
    with pytest.raises(InputError, match=r"holds the tag .<.*SSML and HTML are not read, send plain text"):
        phonemize(f"Hello {tag} there")


@pytest.mark.parametrize(
    "text", ["3 < 5 and 7 > 2", "if a <b and c> d", "Ann <ann@example.org>", "I <3 you >_<", "a<b"]
)
def test_what_only_looks_like_a_tag_is_read(phonemize: Phonemizer, text: str) -> None:
    assert len(phonemize(text)) > 2


@pytest.mark.parametrize("text", ["smile \ud83d", "\udc00", "a\udfffb"])
def test_half_a_character_is_refused(phonemize: Phonemizer, text: str) -> None:
    with pytest.raises(InputError, match=r"at position \d+, half of a character"):
        phonemize(text)


@pytest.mark.parametrize("text", ["Hello\0 good morning", "Hello.".encode("utf-16-le").decode()])
def test_nul_is_refused(phonemize: Phonemizer, text: str) -> None:
    """espeak-ng would read no further than to it."""
    with pytest.raises(InputError, match=r"holds NUL at position .*UTF-16"):
        phonemize(text)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Ｈｅｌｌｏ　ｗｏｒｌｄ！", "Hello world!"),
        ("𝐇𝐞𝐥𝐥𝐨, 𝕎𝕠𝕣𝕝𝕕", "Hello, World"),
        ("ᴴᴱᴸᴸᴼ", "hello"),
        ("Ⓗⓔⓛⓛⓞ", "Hello"),
        ("a ﬁne ﬂower", "a fine flower"),
        ("20 ℃", "20 °C"),
        ("３ ㎏", "3 kg"),
        ("Louis Ⅳ", "Louis IV"),
        ("①", "1"),
        ("⅞", "7 over 8"),
        ("Tom &amp; Jerry&#33;", "Tom & Jerry!"),
    ],
)
def test_a_character_that_stands_for_another_is_read_as_that(phonemize: Phonemizer, text: str, same: str) -> None:
    assert phonemize(text) == phonemize(same)


@pytest.mark.parametrize("text", ["A." * 660 + "x " + "B. " * 200, "A." * 660 + "x-" + "B.]" * 200, "st. " * 490])
def test_many_abbreviations_take_no_time(text: str) -> None:
    started = time.process_time()
    clauses(text[:MAXIMUM_CHARACTERS])
    assert time.process_time() - started < 0.2


def test_only_known_symbols(phonemize: Phonemizer) -> None:
    for text in ("naïve café", "中文 hello", "x² + y₂ ≈ 3", "a\x01b", "HELLO NASA U.S. e.g. 50%", "@#$%^&*() ok"):
        assert set(phonemize(text)) <= set(SYMBOLS)


def test_split_keeps_everything_and_the_limit(phonemize: Phonemizer) -> None:
    symbols = phonemize("This is a sentence, with a comma. " * 30)
    parts = split(symbols, 200, 200)
    assert all(len(part) <= 201 for part in parts)
    assert all(part[-1] in PUNCTUATION for part in parts)
    assert [s for part in parts for s in part if s not in (SPACE, *PUNCTUATION)] == [
        s for s in symbols if s not in (SPACE, *PUNCTUATION)
    ]


def test_split_of_a_text_without_marks() -> None:
    parts = split(["a", "b", SPACE] * 200, 100, 100)
    assert all(len(part) <= 101 for part in parts)
    assert sum(part.count("a") for part in parts) == 200


def test_what_is_hardly_longer_stays_whole() -> None:
    text = ["a"] * 60 + ["."] + ["b"] * 39
    assert split(text, 70, 100) == [text]
    assert split([*text, "b"], 70, 100) == [text[:61], ["b"] * 40]


def test_prompt_layout() -> None:
    assert prompt([5, 6], [0, 1]) == [
        BEGIN,
        FIRST_CODE + 5,
        FIRST_CODE + 6,
        TEXT,
        FIRST_SYMBOL,
        FIRST_SYMBOL + 1,
        SPEECH,
    ]


def test_reading_does_without_the_syntax_of_web_addresses() -> None:
    """It would take longer to load than all the rest of the voice; whoever wants it still gets it."""
    program = """
import importlib.util, sys
from wandlib.systems.mini.text import Phonemizer
assert Phonemizer()("smooth")
print(
    "phonemizer" in sys.modules,
    "rfc3987_syntax" in sys.modules,
    importlib.util.find_spec("rfc3987_syntax") is not None,
)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    there = importlib.util.find_spec("rfc3987_syntax") is not None
    assert run.stdout.split() == ["True", "False", str(there)]
