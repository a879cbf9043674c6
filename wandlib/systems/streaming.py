"""Sound while codes come: what turns codes into sound piece by piece, and the iterator that a caller holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wandlib.systems.settings import InputError
from wandlib.systems.speech import RECENT, Chunk, Speech, Trace

Sound = NDArray[np.float32]


@runtime_checkable
class SoundStream(Protocol):
    """Codes in, sound out. One for each utterance."""

    def push(self, code: int) -> Sound:
        """Take the next code; return the sound that is complete by now, shape [samples], often empty."""

    def finish(self) -> Sound:
        """Return the rest of the sound, shape [samples]: no more codes come."""


class AtOnce:
    """A sound stream for a codec that needs all codes: nothing until the end.

    Parameters
    ----------
    decode
        From all codes to all sound, shape [samples].
    """

    def __init__(self, decode: Callable[[NDArray[np.int64]], Sound]) -> None:
        self._decode = decode
        self._codes: list[int] = []

    def push(self, code: int) -> Sound:
        """Keep the code."""
        self._codes.append(code)
        return np.zeros(0, np.float32)

    def finish(self) -> Sound:
        """Return the sound of all codes."""
        return self._decode(np.array(self._codes, dtype=np.int64))


Piece = tuple[list[int], Sound]
"""Codes that came since the piece before, and the sound that became complete."""


class SpeechStream(Iterator[Sound]):
    """Sound as it is made: iterate over it, shape [samples] each, at ``sample_rate`` Hz.

    Nothing is computed while nobody asks for the next piece. A stream may be endless: it holds figures alone, and the
    last steps, unless it is to ``keep`` what it makes. That stays in :attr:`speech` then, also after an error, after
    :meth:`close`, and where the iteration was left early.

    Attributes
    ----------
    trace
        What the steps and the pieces cost so far.
    sample_rate
        In Hz.
    seconds
        Length of the sound so far.
    seconds_to_compute
        Wall time that it took; time that the consumer of the pieces took does not count.
    """

    def __init__(
        self, pieces: Iterator[Piece], trace: Trace, sample_rate: int, texts: list[str], *, keep: bool
    ) -> None:
        self._pieces: Any = pieces
        self.trace, self.sample_rate = trace, sample_rate
        self.seconds = self.seconds_to_compute = 0.0
        self._texts, self._keep, self._closed = texts, keep, False
        self._codes: list[int] = []
        self._sounds: list[Sound] = []

    def __next__(self) -> Sound:
        started = time.perf_counter()
        try:
            while True:
                if self._closed:
                    self._pieces.close()
                codes, sound = next(self._pieces)
                self._codes += codes if self._keep else []
                if len(sound):
                    break
        finally:
            self.seconds_to_compute += time.perf_counter() - started
        self.seconds += len(sound) / self.sample_rate
        self.trace.chunks.append(Chunk(self.seconds_to_compute, len(sound) / self.sample_rate))
        if self._keep:
            self._sounds.append(sound)
        elif len(self.trace.steps) >= 2 * RECENT:
            self.trace.forget()
        return sound

    @property
    def speech(self) -> Speech:
        """All that has been made so far.

        Raises
        ------
        InputError
            If the stream does not keep it.
        """
        if not self._keep:
            raise InputError("a stream keeps no sound, for it may be endless: ask for it by stream(..., keep=True)")
        return Speech(
            waveform=np.concatenate(self._sounds) if self._sounds else np.zeros(0, np.float32),
            sample_rate=self.sample_rate,
            codes=np.array(self._codes, dtype=np.int64),
            trace=self.trace,
            text=" ".join(self._texts),
            seconds_to_compute=self.seconds_to_compute,
        )

    def close(self) -> None:
        """Stop: no further step is made. From another thread, or in ``on_step``: none after the piece under way."""
        self._closed = True
        try:
            self._pieces.close()
        except ValueError:  # "already executing": __next__ closes it
            if not self._pieces.gi_running:
                raise

    def __enter__(self) -> SpeechStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
