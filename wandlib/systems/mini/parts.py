"""A long text in pieces that are read by themselves, and these in parts, each with codes of its own."""

from __future__ import annotations

from collections.abc import Iterator

from wandlib.systems.clauses import sentence_ends
from wandlib.systems.mini.text import PUNCTUATION, SPACE


def pieces(text: str, limit: int) -> Iterator[str]:
    """Yield a text in pieces of at most ``limit`` characters, cut at the last sentence end that fits, else word."""
    start = 0
    while len(text) - start > limit:
        ends = list(sentence_ends(text, start, start + limit))
        space = max(text.rfind(blank, start + 1, start + limit) for blank in " \n")
        end = ends[-1] if ends else space + 1 if space > 0 else start + limit
        if text[start:end].strip():
            yield text[start:end]
        start = end
    if text[start:].strip() or start == 0:
        yield text[start:]


def split(symbols: list[str], limit: int, whole: int) -> list[list[str]]:
    """Return the symbols in parts of at most ``limit``, cut at the last sentence end that fits, else comma, else word.

    A rest of at most ``whole`` stays as it is. A part that does not end in a mark gets a comma in addition.
    """
    parts: list[list[str]] = []
    rest = symbols
    while len(rest) > whole:
        cut = limit
        for marks in (PUNCTUATION[1:], PUNCTUATION[:1], (SPACE,)):
            ends = [i + 1 for i, symbol in enumerate(rest[:limit]) if symbol in marks]
            if ends and ends[-1] > limit // 4:
                cut = ends[-1]
                break
        parts.append(_close(rest[:cut]))
        rest = rest[cut:]
        while rest and rest[0] == SPACE:
            rest = rest[1:]
    return [*parts, rest] if rest else parts


def _close(part: list[str]) -> list[str]:
    """Return the part with a mark at its end, as every text in training had one."""
    while part[-1] == SPACE:
        part = part[:-1]
    return part if part[-1] in PUNCTUATION else [*part, ","]
