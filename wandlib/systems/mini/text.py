"""Text to phones: what the embedded voice reads.

espeak-ng (through the pip packages espeakng-loader and phonemizer-fork; GPL-3) reads numbers, abbreviations and English
spelling. Anything with :meth:`Phonemizer.__call__` can stand in its place: a list of symbols from :data:`SYMBOLS`.
"""

from __future__ import annotations

import functools
import html
import logging
import re
import unicodedata
from collections import Counter

from wandlib.systems.espeak import LOGGER, load_espeak
from wandlib.systems.settings import InputError, check_text

VOWELS = "iː ɪ i ᵻ ɛ æ ə ɐ ʌ ɑː ɑ ɔː ɔ ʊ uː u ɜː ɚ eɪ aɪ aʊ ɔɪ oʊ oː a e o".split()
CONSONANTS = "p b t d k ɡ tʃ dʒ f v θ ð s z ʃ ʒ h m n ŋ l ɹ r w j ɾ ʔ x n̩".split()
PUNCTUATION = (",", ".", "?", "!")
SPACE = " "
SYMBOLS = (SPACE, *PUNCTUATION, *CONSONANTS, *VOWELS, *(f"ˈ{vowel}" for vowel in VOWELS))
MAXIMUM_CHARACTERS = 2_000
"""Read at once; a longer text is read in pieces."""

_ABBREVIATION = re.compile(
    r"\b(?:(?i:dr|mr|mrs|ms|st|prof|jr|sr|vs|approx|dept|gen|lt|capt|rev|e\.g|i\.e)|[A-HJ-Z]|(?:[A-Za-z]\.)+[A-Za-z])\.$"
)
_NUMBERED = re.compile(r"\b(?i:no|fig|vol|ch|pp?)\.$")
_CLAUSE_END = re.compile(r"[,;:.!?]+(?=[\s\"')\]]|$)|\s[-–—]+\s|—")
_WORD = 40
"""Characters of the longest word before a point that may be an abbreviation."""
# HTML's attributes that may stand without a value.
_BARE = (
    "allowfullscreen|async|autofocus|autoplay|checked|controls|default|defer|disabled|hidden|inert|ismap|itemscope|loop|"
    "multiple|muted|nomodule|novalidate|open|playsinline|readonly|required|reversed|selected"
)
# A name with nothing or attributes behind it; "a <b and c> d" is none, nor is "<ann@example.org>".
_TAG = re.compile(
    rf"<(?:/?[A-Za-z][\w:.-]*(?:\s+(?:[\w:.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s<>\"']+)|(?i:{_BARE})(?=[\s/>])))*\s*/?"
    r"|[!?][^<>]*)>"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[\da-fA-F]{1,6}|[A-Za-z][A-Za-z\d]{1,31});")
# Characters that stand for others (full width, bold, ligatures, units), but those that espeak-ng has a name for, and
# raised and lowered digits, which are numbers by themselves.
_STAND_IN = re.compile("[^\\x00-\\x7f¼½¾⅓⅔™№µªº²³¹\u2070-\u2079\u2080-\u2089]+")
_PHONE = re.compile("|".join(sorted(map(re.escape, (*CONSONANTS, *VOWELS)), key=len, reverse=True)))
_MONEY = re.compile(
    r"([$£€])\s?((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?![\d,.]*\d)"
    r"((?i:[ -]?(?:thousand|million|billion|trillion|bn|tn)|[kmb]))?\b"
)
_UNITS = {"$": "dollar", "£": "pound", "€": "euro"}
_MAGNITUDES = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion", "tn": "trillion"}
_REPLACEMENTS = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "ˌ": None, "\u200d": None})


class Phonemizer:
    """English text to symbols, with espeak-ng.

    Raises
    ------
    ImportError
        Where phonemizer-fork or espeakng-loader is missing; the message gives the pip line.
    """

    def __init__(self) -> None:
        self._backend = _espeak()

    def __call__(self, text: str) -> list[str]:
        """Symbols of ``text``: phones, spaces between words, and the four punctuation marks; none of "* * *".

        Raises
        ------
        InputError
            For a text that :func:`check` refuses.
        """
        check(text)
        symbols: list[str] = []
        for clause, mark in clauses(text):
            phones = self._phones(clause)
            if phones:
                symbols += [SPACE] if symbols else []
                symbols += [*phones, mark]
        return symbols

    def _phones(self, clause: str) -> list[str]:
        (ipa,) = self._backend.phonemize([clause], strip=True)
        symbols: list[str] = []
        for word in unicodedata.normalize("NFC", ipa).translate(_REPLACEMENTS).split():
            symbols += [SPACE] if symbols else []
            symbols += parse_word(word)
        return symbols


def parse_word(ipa: str) -> list[str]:
    """One word of IPA as symbols; stress moves onto the next vowel, marks we have no symbol for are dropped."""
    symbols: list[str] = []
    position, stressed = 0, False
    while position < len(ipa):
        if ipa[position] == "ˈ":
            stressed, position = True, position + 1
            continue
        match = _PHONE.match(ipa, position)
        if match is None:
            position += 1
            continue
        phone = match.group()
        if stressed and phone in VOWELS:
            phone, stressed = f"ˈ{phone}", False
        symbols.append(phone)
        position = match.end()
    return symbols


def check(text: str) -> None:
    """Refuse what cannot be read aloud as English.

    Raises
    ------
    InputError
        When the text is empty, beyond :data:`MAXIMUM_CHARACTERS`, mostly in other letters than Latin ones, or holds
        SSML or HTML tags, NUL or half a character.
    """
    if not text.strip():
        raise InputError("the text is empty: write something to say")
    if len(text) > MAXIMUM_CHARACTERS:
        raise InputError(
            f"the text has {len(text):,} characters, the limit is {MAXIMUM_CHARACTERS:,}: split it into parts"
        )
    check_text(text)
    tag = _TAG.search(text)
    if tag is not None:
        raise InputError(f"the text holds the tag {tag.group()[:40]!r}: SSML and HTML are not read, send plain text")
    strange = other_script(text)
    if strange:
        raise InputError(f"the text is mostly in another script ({strange}): this voice reads English alone")


def other_script(text: str) -> str:
    """Return the script of most letters, by its Unicode name, where fewer than half are Latin; else "".

    A Greek letter that stands alone is a sign of mathematics, and espeak-ng knows its name.
    """
    words = re.sub(r"(?<!\w)[\u0370-\u03ff](?!\w)", "", plain(text))
    letters = (letter for letter in words if letter.isalpha() or "\u2800" < letter < "\u2900")  # Braille's are signs
    scripts = Counter(unicodedata.name(letter, "UNKNOWN").split()[0] for letter in letters)
    if 2 * scripts["LATIN"] >= scripts.total():
        return ""
    return scripts.most_common(1)[0][0].capitalize().replace("Cjk", "Chinese")


def clauses(text: str) -> list[tuple[str, str]]:
    """(clause, mark) pairs: the text cut at punctuation that a speaker would hear, and which of the four marks it is.

    Points inside numbers and after abbreviations stay with their clause, for espeak-ng to read.
    """
    cleaned = " ".join(plain(text).translate(_REPLACEMENTS).split())
    cleaned = _MONEY.sub(_spoken_money, cleaned)
    found: list[tuple[str, str]] = []
    start = 0
    for match in _CLAUSE_END.finditer(cleaned):
        following = cleaned[match.end() :].strip()
        if match.group() == "." and following:
            before = _last_word(cleaned[max(start, match.end() - _WORD) : match.end()])
            if _ABBREVIATION.search(before) or (following[0].isdigit() and _NUMBERED.search(before)):
                continue
        found.append((cleaned[start : match.start()].strip(), _mark(match.group())))
        start = match.end()
    found.append((cleaned[start:].strip(), "."))
    return [(clause, mark) for clause, mark in found if any(map(str.isalnum, clause)) or _has_symbol(clause)]


def plain(text: str) -> str:
    """Put usual characters in the place of those that stand for them, and of HTML's names for characters.

    Full-width, bold and circled letters, ligatures, units in one character: espeak-ng would read their numbers.
    """
    text = unicodedata.normalize("NFC", _ENTITY.sub(lambda match: html.unescape(match.group()), text))
    return _STAND_IN.sub(lambda match: unicodedata.normalize("NFKC", match.group()).replace("\u2044", " over "), text)


def _last_word(text: str) -> str:
    """Return what follows the last space; nothing of a word that is too long for an abbreviation."""
    word = text.rpartition(" ")[2]
    return "" if len(word) >= _WORD else word


def _spoken_money(match: re.Match[str]) -> str:
    """Espeak-ng reads the sign first, people say it last: $42.50 is 42 dollars 50, $1.5m is 1.5 million dollars."""
    sign, number, magnitude = match.groups()
    unit = _UNITS[sign]
    if magnitude:
        name = magnitude.strip(" -").lower()
        return f"{number} {_MAGNITUDES.get(name, name)} {unit}s"
    whole, _, cents = number.partition(".")
    if len(cents) != 2:
        whole, cents = number, ""
    return f"{whole} {unit}{'' if whole == '1' else 's'} {cents}".rstrip()


def _has_symbol(clause: str) -> bool:
    """Whether espeak-ng would read a sign aloud: currency, mathematics, emoji."""
    return any(unicodedata.category(character) in {"Sc", "Sm", "So"} for character in clause)


def _mark(matched: str) -> str:
    for mark in "?!":
        if mark in matched:
            return mark
    return "." if "." in matched else ","


@functools.cache
def _espeak():  # type: ignore[no-untyped-def]  # phonemizer ships no types
    load_espeak()
    from phonemizer.backend import EspeakBackend

    logger = logging.getLogger(LOGGER)
    # No mark counts as punctuation here: clauses are cut before, and points inside numbers are for espeak-ng to read.
    return EspeakBackend(
        "en-us", punctuation_marks="\u2063", with_stress=True, language_switch="remove-flags", logger=logger
    )
