"""The speakers of the corpus, and the voice of Kokoro that each one is.

By CANDIDATES.md nearly all voices are clear, so those were taken that sound well and, one beside the other, unlike.
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
