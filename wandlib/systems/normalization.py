"""``wetext``, an optional package, which writes numbers, dates and units out as they are read."""

from __future__ import annotations

import re
from collections.abc import Callable

from wandlib.systems.settings import InputError

_SPACES = re.compile(r"\s+")


def written_out(normalize: Callable[[str], str], text: str) -> str:
    """Return ``text`` as wetext's ``normalize`` writes it, spaces in a row taken as one: its English rules need that.

    Raises
    ------
    InputError
        If it cannot read the text.
    """
    text = _SPACES.sub(" ", text)
    try:
        return normalize(text)
    except AssertionError as error:  # its parser says no more
        raise InputError(f"wetext cannot read {text[:40]!r}: take out signs that stand alone, as in '? !'") from error
