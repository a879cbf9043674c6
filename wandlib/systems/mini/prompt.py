"""The token sequence of the embedded voice, the same in training and in use.

    [BEGIN] reference codes [TEXT] symbols [SPEECH] | codes ... [END]

Everything up to and with [SPEECH] is the conditioning; what follows is generated. In a stream, END is not fed, and the
next text follows the last code; the reference codes stay, the texts expire:

    [BEGIN] reference codes | [TEXT] symbols [SPEECH] codes ... | [TEXT] symbols [SPEECH] codes ... | ...
"""

from __future__ import annotations

from collections.abc import Sequence

from wandlib.systems.mini.codec import CODES
from wandlib.systems.mini.text import SYMBOLS

BEGIN, TEXT, SPEECH, END = range(4)
FIRST_SYMBOL = 4
FIRST_CODE = 128
VOCABULARY = FIRST_CODE + CODES + 1
"""128 for what is not sound, 4,375 codes, and one unused: a multiple of 8."""

assert FIRST_SYMBOL + len(SYMBOLS) <= FIRST_CODE


def prompt(reference: Sequence[int], symbols: Sequence[int]) -> list[int]:
    """Return the conditioning of one utterance, from reference codes and symbol numbers."""
    return [BEGIN, *(FIRST_CODE + code for code in reference), *text_block(symbols)]


def text_block(symbols: Sequence[int]) -> list[int]:
    """Return the conditioning of one utterance of a stream that has begun."""
    return [TEXT, *(FIRST_SYMBOL + symbol for symbol in symbols), SPEECH]
