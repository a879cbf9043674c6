"""What a visitor asks for, checked: the page's own limits do not bind a client that calls the server directly."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlencode

from wandlib.systems.base import InputError, SpeechSystem
from wandlib.systems.clauses import sentence_ends
from wandlib.systems.settings import Long, check_text

TEXT_LIMIT = 1_000
CHAPTER_LIMIT = 30_000
"""Characters."""
WINDOW_LIMITS = (2, 256)
"""Keys."""
SEED_LIMIT = 2**31 - 1
TEMPERATURES: list[tuple[str, str | float]] = [
    ("the voice's own", "default"),
    ("0 (greedy)", 0.0),
    *((f"{value:g}", value) for value in (0.3, 0.5, 0.7, 0.9, 1.1)),
]


@dataclass(frozen=True)
class Request:
    """What to say.

    ``reference`` is a built-in speaker's name or the path of a recording, ``transcript`` what the recording says;
    ``long`` whether parts of a long text share a cache, None: as the voice was trained; ``further`` settings are those
    that one tab alone has.
    """

    text: str
    reference: str | Path | None
    window: int
    seed: int = 0
    temperature: float | None = None
    long: Long | None = None
    transcript: str | None = None
    further: Mapping[str, Any] = field(default_factory=dict)

    def link(self, tab: str) -> str:
        """Return the address that asks for the same again; an uploaded recording is not part of it."""
        return f"?{urlencode({'tab': tab, 'text': self.text} | self.settings())}"

    def settings(self) -> dict[str, Any]:
        """Return all settings by name; those left to the voice, and an uploaded recording, are left out."""
        found: dict[str, Any] = {"window": self.window, "seed": self.seed}
        if isinstance(self.reference, str):
            found["speaker"] = self.reference
        if self.temperature is not None:
            found["temperature"] = self.temperature
        return {**found, **self.further}


def read_request(
    system: SpeechSystem,
    text: str | None,
    speaker: str | None,
    recording: str | None,
    window: float | None,
    seed: float | None = 0,
    temperature: str | float = "default",
    limit: int = TEXT_LIMIT,
    transcript: str | None = None,
) -> Request:
    """Check what came from the page or from a handwritten request.

    Raises
    ------
    InputError
        Naming the limit and the cure.
    """
    text = check_text(text or "")
    if len(text) > limit:
        raise InputError(f"the text has {len(text):,} characters; the limit here is {limit:,}: shorten it")
    transcript = check_text(transcript or "").strip()
    if len(transcript) > TEXT_LIMIT:
        raise InputError(f"the transcript has {len(transcript):,} characters; the limit is {TEXT_LIMIT:,}: shorten it")
    if recording is None and not system.speakers:
        raise InputError("this system has no built-in speaker: give a recording of the voice to imitate")
    if speaker not in system.speakers and system.speakers:
        raise InputError("unknown speaker: choose one from the list")
    low, high = WINDOW_LIMITS
    if not whole(window, low, high):
        raise InputError(f"W must be a whole number from {low} to {high}")
    if not whole(seed, 0, SEED_LIMIT):
        raise InputError(f"the seed must be a whole number from 0 to {SEED_LIMIT:,}")
    if temperature not in [value for _, value in TEMPERATURES]:
        raise InputError("unknown temperature: choose one from the list")
    return Request(
        text=text,
        reference=speaker if recording is None else Path(recording),
        window=int(window),
        seed=int(seed),
        temperature=None if temperature == "default" else float(temperature),
        transcript=None if recording is None or not transcript else transcript,
    )


def whole(value: object, low: int, high: int) -> TypeGuard[float]:
    """Tell whether a value is a whole number between the limits."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high and value == int(value)
    )


def from_link(query: Mapping[str, str], limit: int, choices: Mapping[str, Iterable[Any]]) -> dict[str, Any]:
    """Return what a repeat link asks for, by the name of the setting; what is out of its limits is left out.

    Parameters
    ----------
    limit
        Most characters of the text.
    choices
        Values of the settings that are chosen from a list.
    """
    found: dict[str, Any] = {}
    if 0 < len(query.get("text", "")) <= limit:
        found["text"] = query["text"]
    for name, limits in (("window", WINDOW_LIMITS), ("seed", (0, SEED_LIMIT))):
        given = query.get(name, "")
        if len(given) <= len(str(limits[1])) and given.isdecimal() and whole(int(given), *limits):
            found[name] = int(given)
    return found | {
        name: value for name, values in choices.items() for value in values if str(value) == query.get(name)
    }


def pieces(text: str, longest: int = 600) -> list[str]:
    """Return a long text in pieces of whole sentences, at most ``longest`` characters each where sentences allow it."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        piece = ""
        line = " ".join(paragraph.split())
        ends = [0, *sentence_ends(line), len(line)]
        for start, end in itertools.pairwise(ends):
            if piece and len(piece) + end - start > longest:
                found.append(piece.strip())
                piece = ""
            piece += line[start:end]
        if any(character.isalnum() for character in piece):
            found.append(piece.strip())
    return found
