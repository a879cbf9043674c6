"""Text as it comes, cut into clauses: what is spoken at once while the rest is still being written.

Where a clause ends depends on the text alone, not on the pieces in which it came. A clause ends

- after . ! ? or an ellipsis and the space behind it, unless the word before the point may be an abbreviation, or is the
  number of an item;
- after , ; : or a dash and the space behind it, once it has ``SOON`` characters;
- after a mark that needs no space behind it (of Chinese and Japanese);
- after a line, unless it has ``WRAPPED`` characters and the next goes on: then its end is a space;
- at a space once it has ``LONGEST`` characters, or there without a space.

Signs without a word (a picture in a line of its own) go with the next clause; at the end they are left out, unless they
are all there is: not every system has a name for them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from wandlib.systems.abbreviations import COUNTED, DAYS, MONTHS, PLACES, TITLES
from wandlib.systems.settings import InputError, check_text

SOON = 60
"""Characters: a shorter clause waits for the next, since single words are spoken less well."""
LONGEST = 300
"""Characters. At 15 characters a second, 20 s."""
WRAPPED = 50
"""Characters of a line that may have been broken for its width; a shorter one is a title, an item, a verse."""

_CLOSING = r"\"'”’)\]»›*_"
_END = re.compile(rf"(?<![.!?…])[.!?…]+[{_CLOSING}]*\s|[,;:][{_CLOSING}]*\s|[^\S\n][-–—]+\s|[。！？；，、]|\n")
_SENTENCE_END = re.compile(rf"[.!?…][{_CLOSING}]*\s|\n\s*\n")
_NUMBER = re.compile(r"\s*\d{1,3}\.\s")
_LINE_END = re.compile(r"\s*\n\s*")
_LINE_BEGIN = re.compile(r"[^\S\n]*(?:(?P<word>\d+(?![\d.)])|[^\W\d_]|[\"'“‘«(\[])|\d+[.)]|[^\d\s]|\n)")
_ANY_CASE = "|".join((*TITLES, *PLACES, *COUNTED, *"Dr Mr Mrs St vs approx dept etc al cf ca yd".split()))
_AS_WRITTEN = "|".join((*DAYS, *(short for short, month in MONTHS.items() if short != month)))
_ABBREVIATION = re.compile(
    rf"(?:\b(?:(?i:{_ANY_CASE}|lbs?|oz|hrs?|mins?|secs?)|{_AS_WRITTEN}|[A-HJ-Z]|(?:[A-Za-z]\.)+[A-Za-z])\."
    r"|&#?\w{1,31};)\s$"
)
"""What ends no clause: whoever reads the longer one sees what follows, and cuts it there if it did end a sentence."""


def clauses(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the clauses of a text that comes in pieces of any size.

    Parameters
    ----------
    pieces
        An iterable of str; a word may be split between two of them.

    Raises
    ------
    InputError
        If it holds nothing to say, something that is no str, or half of a character. What the iterable itself raises
        comes through once all complete clauses were yielded.
    """
    found, rest, column, signs = False, "", 0, ""
    for piece in _checked(pieces):
        for start in range(0, len(piece), LONGEST):  # in blocks: a piece may hold a book
            rest += piece[start : start + LONGEST]
            while (end := _first_end(rest, column)) is not None:
                clause, rest = rest[:end], rest[end:]
                column = end - 1 - clause.rfind("\n") if "\n" in clause else column + end
                if _has_words(clause):
                    yield _in_one_line(signs + clause if len(signs + clause) <= LONGEST else clause)
                    found, signs = True, ""
                elif _has_sign(clause) and len(signs + clause) < LONGEST // 10:
                    signs += f"{clause.strip()} "
    rest = signs + rest
    if _has_words(rest) or (_has_sign(rest) and not found):
        yield _in_one_line(rest)
    elif not found:
        raise InputError("the text is empty: the iterable yielded nothing to say")


def _checked(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the pieces, each of them checked."""
    try:
        iterator = iter(pieces)
    except TypeError:
        raise InputError(f"the text is a str or an iterable of str, not {type(pieces).__name__}") from None
    for piece in iterator:
        yield check_text(piece)


def _first_end(text: str, column: int) -> int | None:
    """Return where the first clause ends; None: not known yet.

    Parameters
    ----------
    column
        Characters of the line before the first one of ``text``.
    """
    seen = text[: LONGEST + 1]
    for match in _END.finditer(seen):
        mark, end = match.group(), match.end()
        soon = end >= SOON or not (mark[0] in ",;:" or mark[0].isspace())
        held = _ABBREVIATION.search(seen[:end]) or (not column and _NUMBER.fullmatch(seen[:end]))
        if mark != "\n" and soon and not held:
            return end
        if "\n" in mark:
            before = seen[: end - 1].rpartition("\n")
            length = len(before[2].rstrip()) + (0 if before[1] else column)
            heading = before[2].lstrip().startswith("#") and (before[1] or not column)
            goes_on = length >= WRAPPED and not heading and _goes_on(seen[end:])
            if goes_on is None and len(text) <= LONGEST:
                return None
            if not goes_on:
                return end
    if len(text) <= LONGEST:
        return None
    space = text.rfind(" ", 1, LONGEST)
    return LONGEST if space < 0 else space + 1


def sentence_ends(text: str, start: int = 0, end: int | None = None) -> Iterator[int]:
    """Yield where the sentences and paragraphs of a text end, within a part of it; not after an abbreviation."""
    for match in _SENTENCE_END.finditer(text, start, len(text) if end is None else end):
        if not _ABBREVIATION.search(text[max(start, match.end() - LONGEST) : match.end()]):
            yield match.end()


def _goes_on(following: str) -> bool | None:
    """Return whether a line begins like the rest of the one before, and not like an item; None: not known yet."""
    begin = _LINE_BEGIN.match(following)
    if begin is None or (begin.end() == len(following) and following[-1].isdigit()):
        return None
    return begin.group("word") is not None


def _in_one_line(clause: str) -> str:
    return _LINE_END.sub(" ", clause.strip())


def _has_words(clause: str) -> bool:
    """Return whether a clause holds a letter or a digit."""
    return any(c.isalnum() for c in clause)


def _has_sign(clause: str) -> bool:
    """Return whether a clause holds a sign that may have a name."""
    return any(unicodedata.category(c) in {"Sc", "Sm", "So"} for c in clause)
