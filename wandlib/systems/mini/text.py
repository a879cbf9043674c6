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
from wandlib.systems.mini.reading import joined, written_out
from wandlib.systems.settings import InputError, check_text

VOWELS = "iː ɪ i ᵻ ɛ æ ə ɐ ʌ ɑː ɑ ɔː ɔ ʊ uː u ɜː ɚ eɪ aɪ aʊ ɔɪ oʊ oː a e o".split()
CONSONANTS = "p b t d k ɡ tʃ dʒ f v θ ð s z ʃ ʒ h m n ŋ l ɹ r w j ɾ ʔ x n̩".split()
PUNCTUATION = (",", ".", "?", "!")
SPACE = " "
SYMBOLS = (SPACE, *PUNCTUATION, *CONSONANTS, *VOWELS, *(f"ˈ{vowel}" for vowel in VOWELS))
MAXIMUM_CHARACTERS = 2_000
"""Read at once; a longer text is read in pieces."""

_ABBREVIATION = re.compile(
    r"\b(?:(?i:dr|mr|mrs|ms|st|prof|jr|sr|vs|approx|dept|gen|lt|capt|rev)|[A-HJ-Z]|(?:[A-Za-z]\.)+[A-Za-z])\.$"
)
_CLAUSE_END = re.compile(r"[,;:.!?]+(?=[\s\"')\]»›}]|$)|\s[-–—]+\s|—")
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
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])[´`ʼ‛′＇](?=[^\W\d_])")
_CAPITALS = re.compile(r"\b(?:IT|US)\b")
FULL = 500
"""Characters of IPA. Of a clause of about a thousand phones or more, espeak-ng drops the rest and says nothing."""
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
            For a text that :func:`check` or :func:`check_script` refuses.
        """
        check_script(scripts_of(text))
        return self.read(text)

    def read(self, text: str) -> list[str]:
        """Return the symbols of ``text``, whatever script it is in: a part of what :func:`check_script` let pass."""
        check(text)
        symbols: list[str] = []
        for clause, mark in clauses(text):
            phones = self._phones(clause)
            if phones:
                symbols += [SPACE] if symbols else []
                symbols += [*phones, mark]
        return symbols

    def _ipa(self, clause: str) -> str:
        """Return what espeak-ng makes of a clause; of a long one, of its halves."""
        ipa: str = self._backend.phonemize([clause], strip=True)[0]
        middle = len(clause) // 2
        if len(ipa) < FULL or not middle:
            return ipa
        space = clause.find(" ", middle)
        cut = clause.rfind(" ", 0, middle) if space < 0 else space
        cut = middle if cut < 1 else cut
        return f"{self._ipa(clause[:cut].strip())} {self._ipa(clause[cut:].strip())}"

    def _phones(self, clause: str) -> list[str]:
        ipa, symbols = self._ipa(clause), list[str]()
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
        When the text is empty, beyond :data:`MAXIMUM_CHARACTERS`, or holds SSML or HTML tags, NUL or half a character.
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


def check_script(scripts: Counter[str]) -> None:
    """Refuse a text of which fewer than half of the letters are Latin.

    Raises
    ------
    InputError
        Naming the script of most letters.
    """
    if 2 * scripts["LATIN"] < scripts.total():
        most = scripts.most_common(1)[0][0].capitalize().replace("Cjk", "Chinese")
        raise InputError(f"the text is mostly in another script ({most}): this voice reads English alone")


def scripts_of(text: str) -> Counter[str]:
    """Count the letters of a text by their script's Unicode name.

    A Greek letter that stands alone is a sign of mathematics, and espeak-ng knows its name.
    """
    words = re.sub(r"(?<!\w)[\u0370-\u03ff](?!\w)", "", plain(text))
    letters = (letter for letter in words if letter.isalpha() or "\u2800" < letter < "\u2900")  # Braille's are signs
    return Counter(unicodedata.name(letter, "UNKNOWN").split()[0] for letter in letters)


def clauses(text: str) -> list[tuple[str, str]]:
    """(clause, mark) pairs: the text cut at punctuation that a speaker would hear, and which of the four marks it is.

    Points inside numbers and after abbreviations stay with their clause, for espeak-ng to read.
    """
    cleaned = written_out(joined(plain(_APOSTROPHE.sub("'", text)).translate(_REPLACEMENTS)))
    found: list[tuple[str, str]] = []
    start = 0
    for match in _CLAUSE_END.finditer(cleaned):
        following = cleaned[match.end() :].strip()
        marks = match.group()
        if marks[0] == "." and following:
            point = match.start() + 1
            if _ABBREVIATION.search(_last_word(cleaned[max(start, point - _WORD) : point])):
                marks = marks[1:]
                if not marks:
                    continue
        found.append((_lowered(cleaned[start : match.start()].strip()), _mark(marks)))
        start = match.end()
    found.append((_lowered(cleaned[start:].strip()), "."))
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


def _lowered(clause: str) -> str:
    """Return a clause in capitals with those words in small letters that espeak-ng would spell: "LET US GO"."""
    shouted = clause.isupper() and len(clause.split()) > 2
    return _CAPITALS.sub(lambda match: match.group().lower(), clause) if shouted else clause


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
