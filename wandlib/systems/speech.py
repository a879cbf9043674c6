"""What comes out of a system: the sound, and beside it what each step and each piece of sound cost."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wandlib.systems.settings import Attention, InputError

BLOCK = 65_536
"""Samples written to a file at once: libvorbis puts all of them on the stack, which a long story overflows."""
RECENT = 10_000
"""Steps that the trace of an endless stream keeps: some minutes."""


@dataclass(frozen=True)
class Step:
    """One decode step, as it is reported while it happens.

    Attributes
    ----------
    index
        0 for the first generated code of the utterance.
    milliseconds
        Wall time of the model call and the sampling.
    cache_bytes
        Bytes that the key-value cache holds after the step.
    """

    index: int
    milliseconds: float
    cache_bytes: int


@dataclass(frozen=True)
class Chunk:
    """One piece of sound, as it left the system.

    Attributes
    ----------
    ready
        Seconds from the start of the utterance until the piece was there; time that its consumer took does not count.
    seconds
        Length of the piece.
    """

    ready: float
    seconds: float


@dataclass
class Trace:
    """The cost of one utterance.

    Attributes
    ----------
    attention, window
        "full" (window None) or "window" (its size in keys).
    conditioning
        Prompt tokens of the first part: always visible.
    prefill_milliseconds
        Wall time of the prompts of all parts together.
    steps
        One entry for every generated token, parts end to end. Of a stream that keeps no sound, the last ones.
    parts
        Codes of each part that the text was split into.
    finish
        Why generation ended: "end" (an end token in every part), "limit" (some part reached its length limit); None: it
        has not yet, or was stopped.
    chunks
        One entry for every piece of sound.
    """

    attention: Attention
    window: int | None
    conditioning: int
    prefill_milliseconds: float = 0.0
    steps: list[Step] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    finish: Literal["end", "limit"] | None = None
    chunks: list[Chunk] = field(default_factory=list)

    def add_step(self, milliseconds: float, cache_bytes: int) -> Step:
        """Note what a step cost, and return it."""
        self.steps.append(Step(self.step_count, milliseconds, cache_bytes))
        return self.steps[-1]

    def end(self) -> Literal["end", "limit"]:
        """Note that all parts have been spoken, and return how that ended."""
        self.finish = self.finish or "end"
        return self.finish

    def forget(self) -> None:
        """Drop old steps and parts, and join pieces of sound, so that the trace of an endless stream hardly grows.

        Pieces between which the sound ran out for a listener stay apart, one for each gap: what is said of the sound
        stays as it was.
        """
        del self.steps[:-RECENT], self.parts[:-RECENT]
        joined, ends = list[Chunk](), 0.0
        for chunk in self.chunks[:-1]:
            if joined and chunk.ready <= ends:
                joined[-1] = Chunk(joined[-1].ready, joined[-1].seconds + chunk.seconds)
            else:
                joined.append(chunk)
            ends = max(ends, chunk.ready) + chunk.seconds
        self.chunks[:-1] = joined

    @property
    def step_count(self) -> int:
        """Number of steps, with those that were dropped."""
        return self.steps[-1].index + 1 if self.steps else 0

    @property
    def milliseconds(self) -> list[float]:
        """Wall time of every step."""
        return [step.milliseconds for step in self.steps]

    @property
    def cache_bytes(self) -> list[int]:
        """Bytes in the cache after every step."""
        return [step.cache_bytes for step in self.steps]

    @property
    def median_milliseconds(self) -> float:
        """Median wall time of a step; 0 when there was none."""
        return statistics.median(self.milliseconds) if self.steps else 0.0

    @property
    def first_sound_milliseconds(self) -> float:
        """Time until the first piece of sound was there; 0 when there was none."""
        return 1000 * self.chunks[0].ready if self.chunks else 0.0

    @property
    def real_time_factor(self) -> float:
        """Time until the last piece of sound over the length of all: below 1 is faster than speech; 0 without sound."""
        seconds = sum(chunk.seconds for chunk in self.chunks)
        return self.chunks[-1].ready / seconds if seconds else 0.0

    @property
    def stalls(self) -> list[float]:
        """Seconds of silence for a listener who starts at the first piece: one entry each time the sound ran out."""
        found = []
        ends = self.chunks[0].ready if self.chunks else 0.0  # of the sound that is being played
        for chunk in self.chunks:
            if chunk.ready > ends:
                found.append(chunk.ready - ends)
            ends = max(ends, chunk.ready) + chunk.seconds
        return found

    @property
    def underruns(self) -> int:
        """How often the sound runs out for a listener who starts at the first piece."""
        return len(self.stalls)

    def __repr__(self) -> str:
        """One line: a notebook would print every step."""
        return f"<Trace: {self.summary}>"

    @property
    def summary(self) -> str:
        """Attention, number of steps and why generation ended, in words."""
        attention = "full attention" if self.window is None else f"window {self.window}"
        ended = "not ended" if self.finish is None else f"finish {self.finish!r}"
        return f"{attention}, {self.step_count} steps, {ended}"


@dataclass
class Speech:
    """A spoken text.

    Attributes
    ----------
    waveform
        Mono, float32 in [-1, 1], shape [samples].
    sample_rate
        In Hz.
    codes
        The codec's tokens, int64, shape [tokens].
    trace
        What each step cost.
    text
        What was to be said.
    seconds_to_compute
        Wall time from text to waveform.
    """

    waveform: NDArray[np.float32]
    sample_rate: int
    codes: NDArray[np.int64]
    trace: Trace
    text: str
    seconds_to_compute: float = 0.0

    def __repr__(self) -> str:
        """One line: a notebook would print every code and step."""
        text = self.text if len(self.text) <= 40 else self.text[:37] + "..."
        return f"<Speech: {text!r}, {self.seconds:.2f} s, {self.trace.summary}>"

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.waveform) / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Time to compute over length of the sound: below 1 is faster than speech."""
        return self.seconds_to_compute / max(self.seconds, 1e-9)

    def save(self, path: str | Path) -> Path:
        """Write a sound file; the format follows the ending: .wav and .flac in 16 bits, .ogg compressed.

        Returns the path.

        Raises
        ------
        InputError
            For another ending, or where the file cannot be written.
        """
        import soundfile

        target = sound_file(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with soundfile.SoundFile(target, "w", self.sample_rate, 1) as file:
                write_samples(file, self.waveform)
        except (OSError, soundfile.LibsndfileError) as error:
            raise InputError(f"cannot write {str(target)!r}: {error}") from error
        return target


def write_samples(file: Any, samples: NDArray[np.float32]) -> None:
    """Add samples, shape [samples], to an open ``soundfile.SoundFile``."""
    for start in range(0, len(samples), BLOCK):
        file.write(samples[start : start + BLOCK])


def sound_file(path: str | Path) -> Path:
    """Return ``path`` if its ending names a format that can be written.

    Raises
    ------
    InputError
        If it names another format, or a folder.
    """
    target = Path(path)
    if target.suffix.lower() not in {".wav", ".flac", ".ogg"}:
        raise InputError(f"cannot write {target.name!r}: name a .wav, .flac or .ogg file")
    if target.is_dir():
        raise InputError(f"cannot write {str(target)!r}: it is a folder; name a file")
    return target
