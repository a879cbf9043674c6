"""Speak without end in one cache: sentence after sentence, each text put behind the last code of the one before.

    BEGIN, 75 codes of the reference | TEXT phones SPEECH, codes | TEXT phones SPEECH, codes | ...

as in the rows of :mod:`recipes.mini.rows`, by the library's own ``long="one cache"``. Under the window, the keys of
texts but the last few and of codes but the last ``window`` are gone, and the cache stays as it is; with full attention
it grows with every token. Greedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wandlib.systems import decoding
from wandlib.systems.base import Attention
from wandlib.systems.mini.system import MiniSystem
from wandlib.systems.settings import Long

Sound = NDArray[np.float32]


@dataclass
class Sentence:
    """One sentence of a long decode, and what its steps cost."""

    text: str
    codes: int = 0
    ended: bool = True
    """Whether the model found the end, in each part of the sentence."""
    milliseconds: list[float] = field(default_factory=list)
    cache_bytes: list[int] = field(default_factory=list)


class Endless(Protocol):
    """What speaks texts in one cache."""

    def __call__(
        self, system: MiniSystem, attention: Attention, speaker: str, texts: Iterable[str]
    ) -> Iterator[tuple[Sentence, Sound]]:
        """Yield each sentence when it is spoken, and its sound, 640 samples for each code."""


def speak(
    system: MiniSystem, attention: Attention, speaker: str, texts: Iterable[str], long: Long = "one cache"
) -> Iterator[tuple[Sentence, Sound]]:
    """Speak texts in one cache, see :class:`Endless`; ``long="parts"``: each part of each in a cache of its own."""
    settings = system.settings_type.make({"attention": attention, "temperature": 0.0, "long": long})
    trace, begun = system.new_trace(settings), list[str]()

    def noted() -> Iterator[str]:
        for text in texts:
            begun.append(text)
            yield text

    done, sentence, sounds = 0, Sentence(""), list[Sound]()
    for utterance in system.utterances(noted(), speaker, settings, streaming=False):
        if len(begun) > done:  # the first part of the next sentence
            if done:
                yield sentence, np.concatenate(sounds)
            done, sentence, sounds = len(begun), Sentence(begun[-1]), [np.zeros(0, np.float32)]
        trace.steps.clear()
        trace.finish = "end"
        for code in decoding.codes(utterance, trace):
            sounds.append(utterance.sound.push(code))
        sounds.append(utterance.sound.finish())
        sentence.codes += trace.parts[-1]
        sentence.ended &= trace.finish == "end"
        sentence.milliseconds += trace.milliseconds
        sentence.cache_bytes += trace.cache_bytes
    if done:
        yield sentence, np.concatenate(sounds)
