"""What goes wrong in autoregressive speech, counted: no end, runaway, early stop, repetition.

Each rule looks at the codes, at why generation ended, and at the text. Let a part of the text have S symbols and its
speech C codes at r codes a second, and let the pace be b to a seconds a symbol, with s seconds of silence allowed:

    no end       generation reached its length limit without an end token
    runaway      it ended, but C > r (a S + s) in some part
    early stop   C < r b S in some part
    repetition   the codes loop (the same 1 to r x 4 codes at least three times in a row, for 1.5 s or longer), or the
                 recognizer hears the same 1 to 8 words at least three times in a row, and twice more than the text has

"No end" and "runaway" exclude each other; any other two may hold of one utterance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from wandlib.evaluation import error_rates
from wandlib.systems.base import Speech

Failure = Literal["no end", "runaway", "early stop", "repetition"]
KINDS: tuple[Failure, ...] = ("no end", "runaway", "early stop", "repetition")
LONGEST_PERIOD = 4.0
"""Seconds of codes that may loop."""
SHORTEST_LOOP = 1.5
"""Seconds: a pause or a held vowel may repeat a code for less."""
LONGEST_PHRASE = 8
"""Words that may loop."""


@dataclass(frozen=True)
class Pace:
    """How fast speech can be: ``least`` to ``most`` seconds a symbol, and ``slack`` seconds of silence beside them."""

    least: float
    most: float
    slack: float


PHONES = Pace(0.044, 0.112, 0.9)
"""For a system that counts its phones, spaces and marks. All 19,973 utterances that the embedded voice learned from,
at speaking rates from 0.85 to 1.2, lie in these bounds."""
CHARACTERS = Pace(0.040, 0.140, 1.0)
"""For any text, by :func:`count_characters`: from 25 characters a second, faster than people read, to a slow 7."""


def count_characters(text: str) -> int:
    """Characters as long to say as a Latin letter: a digit counts as 5 (the mean of their names), an ideograph as 4."""
    extra = 4 * len(re.findall(r"\d", text)) + 3 * len(re.findall(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]", text))
    return len(" ".join(text.split())) + extra


def failures(
    speech: Speech,
    codes_per_second: float,
    symbols: Sequence[int] | None = None,
    heard: str | None = None,
    *,
    pace: Pace | None = None,
    normalize: Callable[[str], str] = error_rates.normalize,
) -> list[Failure]:
    """Return what went wrong with an utterance, of the kinds that the head of this module defines.

    Parameters
    ----------
    speech
        The utterance: its text, codes and trace are looked at.
    codes_per_second
        Of the system's codec.
    symbols
        Symbols in each part of the text, as many as ``speech.trace.parts``; None: the characters of the whole text.
    heard
        Its transcript by a recognizer; None: only the codes can show a repetition.
    pace
        None: :data:`PHONES` where ``symbols`` are given, :data:`CHARACTERS` where they are not.
    normalize
        For words of text and recognizer.

    Raises
    ------
    ValueError
        If symbols and codes are of different numbers of parts.
    """
    if symbols is None:
        parts = [(count_characters(speech.text), len(speech.codes))]
        pace = pace or CHARACTERS
    else:
        if len(symbols) != len(speech.trace.parts):
            raise ValueError(f"symbols of {len(symbols)} parts, but codes of {len(speech.trace.parts)}")
        parts = list(zip(symbols, speech.trace.parts, strict=True))
        pace = pace or PHONES
    found: list[Failure] = []
    if speech.trace.finish == "limit":
        found.append("no end")
    elif any(codes > codes_per_second * (pace.most * size + pace.slack) for size, codes in parts):
        found.append("runaway")
    if any(codes < codes_per_second * pace.least * size for size, codes in parts):
        found.append("early stop")
    plain = error_rates.plain_apostrophes
    said = heard is not None and words_loop(normalize(plain(heard)), normalize(plain(speech.text)))
    if said or codes_loop(speech.codes.tolist(), codes_per_second):
        found.append("repetition")
    return found


def longest_match(tokens: Sequence[Hashable], period: int) -> int:
    """Most tokens in a row that each equal the one ``period`` before: 2 periods are a pattern said three times."""
    longest = run = 0
    for earlier, later in zip(tokens, tokens[period:], strict=False):
        run = run + 1 if earlier == later else 0
        longest = max(longest, run)
    return longest


def codes_loop(codes: Sequence[int], codes_per_second: float) -> bool:
    """Whether the same codes come at least three times in a row, for 1.5 s or longer."""
    shortest = SHORTEST_LOOP * codes_per_second
    for period in range(1, min(round(LONGEST_PERIOD * codes_per_second), len(codes) // 3) + 1):
        same = longest_match(codes, period)
        if same >= 2 * period and same + period >= shortest:
            return True
    return False


def words_loop(heard: str, text: str) -> bool:
    """Whether a phrase is heard at least three times in a row, and at least twice more than the text repeats any."""
    for length in range(1, LONGEST_PHRASE + 1):
        times, meant = (longest_match(side.split(), length) // length + 1 for side in (heard, text))
        if times >= 3 and times >= meant + 2:
            return True
    return False
