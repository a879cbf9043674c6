"""The speakers of the corpus, and the voice of Kokoro that each one is.

By what CANDIDATES.md measured nearly all voices are clear, so those were taken that sound well and unlike each other: no
two of them are more alike than 0.84, where the closest of all voices reach 0.90.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speaker:
    """A name of the embedded voice, and where its speech comes from."""

    name: str
    voice: str
    """Voice of Kokoro."""


SPEAKERS = (
    Speaker("clara", "af_heart"),
    Speaker("ruth", "af_river"),
    Speaker("peter", "am_michael"),
    Speaker("felix", "am_puck"),
    Speaker("alice", "bf_emma"),
    Speaker("jane", "bf_isabella"),
    Speaker("henry", "bm_george"),
    Speaker("victor", "bm_lewis"),
)
"""Two women and two men with an American accent, and as many with a British one."""
