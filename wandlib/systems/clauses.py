"""Text as it comes, cut into clauses: what is spoken at once while the rest is still being written.

Where a clause ends depends on the text alone, not on the pieces in which it came. A clause ends

- after . ! ? or an ellipsis and the space behind it, unless the word before the point may be an abbreviation;
- after , ; : or a dash and the space behind it, once it has ``SOON`` characters;
- after a mark that needs no space behind it (of Chinese and Japanese) and after a line;
- at a space once it has ``LONGEST`` characters, or there without a space.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from wandlib.systems.settings import InputError, check_text

SOON = 60
"""Characters: a shorter clause waits for the next, since single words are spoken less well."""
LONGEST = 300
"""Characters. At 15 characters a second, 20 s."""

_CLOSING = r"\"'”’)\]»›*_"
_END = re.compile(rf"(?<![.!?…])[.!?…]+[{_CLOSING}]*\s|[,;:][{_CLOSING}]*\s|[^\S\n][-–—]+\s|[。！？；，、]|\n")
_SENTENCE_END = re.compile(rf"[.!?…][{_CLOSING}]*\s|\n\s*\n")
_ABBREVIATION = re.compile(
    r"(?:\b(?:(?i:dr|mr|mrs|ms|st|mt|prof|gen|rev|sen|rep|gov|capt|lt|col|maj|sgt|jr|sr|vs|approx|dept|etc|al|cf|no|nos|"
    r"figs?|pp?|ch|vol|sec|eq)|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|[A-HJ-Z]|(?:[A-Za-z]\.)+[A-Za-z])\."
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
    found, rest = False, ""
    for piece in _checked(pieces):
        for start in range(0, len(piece), LONGEST):  # in blocks: a piece may hold a book
            rest += piece[start : start + LONGEST]
            while (end := _first_end(rest)) is not None:
                clause, rest = rest[:end].strip(), rest[end:]
                if _pronounceable(clause):
                    found = True
                    yield clause
    if _pronounceable(rest):
        yield rest.strip()
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


def _first_end(text: str) -> int | None:
    """Return where the first clause ends; None: not known yet."""
    for match in _END.finditer(text[: LONGEST + 1]):
        mark, end = match.group(), match.end()
        if "\n" in mark:
            return end
        if _ABBREVIATION.search(text[:end]):
            continue
        if end >= SOON or not (mark[0] in ",;:" or mark[0].isspace()):
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


def _pronounceable(clause: str) -> bool:
    """Return whether a clause holds a letter, a digit or a sign that has a name."""
    return any(c.isalnum() or unicodedata.category(c) in {"Sc", "Sm", "So"} for c in clause)
