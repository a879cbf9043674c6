"""What every speech system offers: text in, speech out, with the cost of each step beside it.

A system is a tokeniser, a causal decoder under :func:`wandlib.attention.conversion`, and a codec. ``attention="full"`` and
``attention="window"`` run the same code on the same prompt; only the cache differs.
"""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Attention = Literal["full", "window"]


class InputError(ValueError):
    """Text, reference audio or a setting that cannot be used; the message names the limit and the cure."""


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


@dataclass
class Trace:
    """The cost of one utterance.

    Attributes
    ----------
    attention, window
        "full" (window None) or "window" (its size in keys).
    conditioning
        Prompt tokens of the first chunk: always visible.
    prefill_milliseconds
        Wall time of the prompt, all chunks together.
    steps
        One entry for every generated code, chunks end to end.
    parts
        Codes of each part that the text was split into.
    finish
        Why generation ended: "end" (an end token in every part), "limit" (some part reached its length limit).
    """

    attention: Attention
    window: int | None
    conditioning: int
    prefill_milliseconds: float = 0.0
    steps: list[Step] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    finish: Literal["end", "limit"] = "end"

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

    def __repr__(self) -> str:
        """One line: a notebook would print every step."""
        return f"<Trace: {self.summary}>"

    @property
    def summary(self) -> str:
        """Attention, number of steps and why generation ended, in words."""
        attention = "full attention" if self.window is None else f"window {self.window}"
        return f"{attention}, {len(self.steps)} steps, finish {self.finish!r}"


@dataclass
class Speech:
    """What a system says.

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
        """Time to compute over length of the sound: below 1 is faster than speaking."""
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
                # In pieces: libvorbis puts all it is given on the stack, and a long story overflows it.
                for start in range(0, len(self.waveform), 65_536):
                    file.write(self.waveform[start : start + 65_536])
        except (OSError, soundfile.LibsndfileError) as error:
            raise InputError(f"cannot write {str(target)!r}: {error}") from error
        return target


def sound_file(path: str | Path) -> Path:
    """``path``, if its ending names a format that can be written; InputError if not."""
    target = Path(path)
    if target.suffix.lower() not in {".wav", ".flac", ".ogg"}:
        raise InputError(f"cannot write {target.name!r}: name a .wav, .flac or .ogg file")
    return target


class SpeechSystem(ABC):
    """A text-to-speech system whose decoder can run with full attention or with a window."""

    name: str
    sample_rate: int
    """Hz of the waveform."""
    codes_per_second: float
    """Codec tokens for one second of sound."""
    window: int
    """The window used when none is given."""

    @property
    @abstractmethod
    def speakers(self) -> list[str]:
        """Names of the built-in references."""

    @abstractmethod
    def synthesize(
        self,
        text: str,
        reference: str | Path | None = None,
        attention: Attention = "full",
        *,
        window: int | None = None,
        seed: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Speech:
        """Speak ``text`` in the voice of ``reference``.

        Parameters
        ----------
        text
            What to say.
        reference
            The name of a built-in speaker or an audio file (any rate, mono or stereo); None: the first speaker.
        attention
            "full": every key is kept. "window": the prompt and the last ``window`` codes.
        window
            In keys, the query's own included; None: the system's default. Ignored with full attention.
        seed
            Of the sampling; it matters above temperature 0. The same seed on the same machine gives the same speech.
        temperature, top_k
            Of the sampling; None: the system's defaults. A temperature of 0 is greedy.
        on_step
            Called after every decode step, in this thread.

        Raises
        ------
        InputError
            When the text, the reference or a setting is outside the limits; the message names limit and cure.
        """

    @abstractmethod
    def stream(
        self,
        text: str,
        reference: str | Path | None = None,
        attention: Attention = "full",
        *,
        window: int | None = None,
        seed: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Iterator[NDArray[np.float32]]:
        """Like :meth:`synthesize`, but yields sound, part by part, while the rest is still to be generated."""
