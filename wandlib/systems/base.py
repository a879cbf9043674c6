"""What every speech system offers: text in, speech out, with the cost of each step.

A system is a tokenizer, a causal decoder with a window applied to it, and a codec. It implements one method,
:meth:`SpeechSystem.utterances`, which makes prompts; the loop, the clock, streams and settings are shared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from wandlib.attention.numbers import whole_number
from wandlib.systems import decoding
from wandlib.systems.asynchronous import AsyncSpeechStream, AsyncText
from wandlib.systems.batching import Job, References, decode_alone, decode_many, paired
from wandlib.systems.clauses import clauses
from wandlib.systems.decoding import Utterance
from wandlib.systems.memory import explained_memory
from wandlib.systems.settings import Attention, InputError, Settings, Whole, check_reference, check_text
from wandlib.systems.speech import Speech, Step, Trace
from wandlib.systems.streaming import Piece, SpeechStream

__all__ = ["Attention", "InputError", "Settings", "Speech", "SpeechSystem", "Step", "Trace", "Utterance"]

Text = str | Iterable[str]
OnStep = Callable[[Step], None]


class SpeechSystem(ABC):
    """A text-to-speech system whose decoder can run with full attention or with a window."""

    name: str
    sample_rate: int
    """Samples of the waveform in a second."""
    codes_per_second: float
    """Codec tokens for one second of sound."""
    window: int
    """The window used when none is given."""
    settings_type: ClassVar[type[Settings]] = Settings
    """What a caller may set; a system with settings of its own extends :class:`Settings`."""
    long_in_one_cache: ClassVar[bool] = False
    """Whether it can decode a text of several parts in one cache."""

    @property
    @abstractmethod
    def speakers(self) -> list[str]:
        """Names of the built-in references."""

    @abstractmethod
    def utterances(
        self, texts: Iterator[str], reference: str | Path | None, settings: Settings, *, streaming: bool
    ) -> Iterator[Utterance]:
        """Yield one utterance for each part that the texts are spoken in, when it is asked for.

        Parameters
        ----------
        texts
            A whole text, or clauses as they become known; each is str that can be encoded.
        reference
            The name of a built-in speaker or an audio file; None: the system's own choice.
        settings
            Checked settings, of :attr:`settings_type`. A setting that is None is the system's to fill.
        streaming
            Whether each piece of sound is wanted as soon as possible.

        Raises
        ------
        InputError
            If a text, the reference or a setting is outside the system's limits.
        """

    def synthesize(
        self,
        text: Text,
        reference: str | Path | None = None,
        attention: Attention = "full",
        *,
        window: Whole | None = None,
        seed: Whole | None = 0,
        temperature: float | None = None,
        top_k: Whole | None = None,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> Speech:
        """Speak ``text`` in the voice of ``reference``.

        Parameters
        ----------
        text
            What to say. Of an iterable of str, which may split words, each clause is spoken by itself.
        reference
            The name of a built-in speaker or an audio file (any rate, mono or stereo); None: the first speaker.
        attention
            "full": every key is kept. "window": the prompt and the last ``window`` codes.
        window
            In keys, the query's own included; None: the system's default. Ignored with full attention.
        seed
            Seed of the sampling; it matters above temperature 0. The same seed on the same machine gives the same
            speech. None: 0.
        temperature, top_k
            Settings of the sampling; None: the system's defaults. A temperature of 0 is greedy.
        on_step
            Called after every decode step, in this thread.
        options
            Further settings: ``long`` (see :class:`Settings`), and those of this system.

        Raises
        ------
        InputError
            When the text, the reference or a setting is outside the limits; the message names limit and cure.
        """
        given = {"window": window, "seed": seed, "temperature": temperature, "top_k": top_k} | options
        stream = self._start(text, reference, {"attention": attention} | given, on_step, streaming=False, keep=True)
        for _ in stream:
            pass
        return stream.speech

    def stream(
        self,
        text: Text,
        reference: str | Path | None = None,
        attention: Attention = "full",
        *,
        window: Whole | None = None,
        seed: Whole | None = 0,
        temperature: float | None = None,
        top_k: Whole | None = None,
        on_step: OnStep | None = None,
        keep: bool = False,
        **options: Any,
    ) -> SpeechStream:
        """Speak like :meth:`synthesize`, but yield sound while the rest is still to be generated.

        ``text`` may be an iterable of str that is still being written, such as a language model's output: a clause is
        spoken as soon as it is known. If the iterable raises, all complete clauses are spoken before the error comes
        through. What was made stays in the stream's ``speech`` if it is to ``keep`` it; else it may speak without end.

        Each part of a text has a prompt and a cache of its own, unless ``long`` is "one cache". That is the default of
        attention="window" with a student that was trained for it (its config has ``blocks``, as that of the embedded
        voice): old text expires, and the cache stays as it is. Under full attention, one cache grows.
        """
        given = {"window": window, "seed": seed, "temperature": temperature, "top_k": top_k} | options
        return self._start(text, reference, {"attention": attention} | given, on_step, streaming=True, keep=keep)

    def astream(
        self,
        text: AsyncText,
        reference: str | Path | None = None,
        attention: Attention = "full",
        *,
        on_step: OnStep | None = None,
        keep: bool = False,
        **settings: Any,
    ) -> AsyncSpeechStream:
        """Speak like :meth:`stream` for an event loop: ``async for sound in tts.astream(text)``.

        ``text`` may be an asynchronous iterable as well. The sound is computed in a thread; where the waiting task is
        canceled, the generation ends at its next step.
        """

        def start(text: Text, on_step: OnStep) -> SpeechStream:
            return self._start(text, reference, {"attention": attention} | settings, on_step, streaming=True, keep=keep)

        return AsyncSpeechStream(text, start, on_step)

    def synthesize_many(
        self,
        texts: Iterable[str],
        references: References = None,
        attention: Attention = "full",
        *,
        batch_size: Whole = 16,
        **settings: Any,
    ) -> list[Speech]:
        """Speak many texts in one decode, as :meth:`synthesize` speaks each; greedily, with the same codes.

        Parameters
        ----------
        texts
            What to say.
        references
            One for all, or one for each.
        batch_size
            How many are decoded at once: when a sentence ends, the next text takes its place.
        settings
            As for :meth:`synthesize`; ``long`` is "parts" by default.

        Raises
        ------
        InputError
            For the first text that the system refuses; :meth:`synthesize_as_completed` goes on with the others.
        """
        found = {}
        for index, made in self.synthesize_as_completed(
            texts, references, attention, batch_size=batch_size, **settings
        ):
            if isinstance(made, InputError):
                raise InputError(f"text {index}: {made}") from made
            found[index] = made
        return [found[index] for index in sorted(found)]

    def synthesize_as_completed(
        self,
        texts: Iterable[str],
        references: References = None,
        attention: Attention = "full",
        *,
        batch_size: Whole = 16,
        **settings: Any,
    ) -> Iterator[tuple[int, Speech | InputError]]:
        """Speak many texts like :meth:`synthesize_many`, and yield each when it is done, with its index.

        A text that the system refuses comes as the error; the others are spoken.
        """
        own = {name: value for name, value in settings.items() if value is not None}
        checked, size = self._check({"long": "parts", "attention": attention} | own), whole_number(batch_size)
        if size is None or size < 1:
            raise InputError(f"batch_size is at least 1, not {batch_size!r}")
        if type(self).codes is not SpeechSystem.codes:
            size = 1  # a search of its own, which knows one sequence

        def utterances(text: str, reference: str | Path | None) -> Iterator[Utterance]:
            # A generator, so that what it refuses is an error of this text alone.
            yield from self.utterances(iter([check_text(text)]), check_reference(reference), checked, streaming=False)

        def jobs() -> Iterator[Job]:
            for index, (text, reference) in enumerate(paired(texts, references)):
                yield Job(index, text, utterances(text, reference), self.new_trace(checked))

        window = self.new_trace(checked).window
        found = decode_many(jobs(), window, size)
        if size == 1:
            found = (decode_alone(job, self._pieces(job.utterances, job.trace, None)) for job in jobs())
        with explained_memory():
            for job, error in found:
                yield job.index, job.speech(self.sample_rate) if error is None else error

    def _start(
        self,
        text: Text,
        reference: str | Path | None,
        options: dict[str, Any],
        on_step: OnStep | None,
        *,
        streaming: bool,
        keep: bool,
    ) -> SpeechStream:
        """Check the settings and return a stream that has not begun."""
        settings, reference = self._check(options), check_reference(reference)
        trace, begun = self.new_trace(settings), list[str]()
        texts = iter([check_text(text)]) if isinstance(text, str) else clauses(text)

        def noted() -> Iterator[str]:
            for piece in texts:
                begun.extend([piece] if keep else [])
                yield piece

        utterances = self.utterances(noted(), reference, settings, streaming=streaming)
        return SpeechStream(self._pieces(utterances, trace, on_step), trace, self.sample_rate, begun, keep=keep)

    def _check(self, options: dict[str, Any]) -> Settings:
        """Return the settings; InputError where one is unknown, out of range, or not for this system."""
        settings = self.settings_type.make(options)
        if settings.long == "one cache" and not self.long_in_one_cache:
            raise InputError(f"{self.name} decodes each part of a long text by itself: leave out long='one cache'")
        return settings

    def _pieces(self, utterances: Iterator[Utterance], trace: Trace, on_step: OnStep | None) -> Iterator[Piece]:
        """Yield codes and sound of one utterance after another."""
        with explained_memory():
            yield from decoding.pieces(utterances, lambda utterance: self.codes(utterance, trace, on_step))
        trace.end()

    def codes(self, utterance: Utterance, trace: Trace, on_step: OnStep | None) -> Iterator[int]:
        """Yield the codes of one utterance; a system with another search than sampling overrides this."""
        return decoding.codes(utterance, trace, on_step)

    def new_trace(self, settings: Settings) -> Trace:
        """Return an empty trace for these settings."""
        window = None if settings.attention == "full" else settings.window or self.window
        return Trace(settings.attention, window, conditioning=0)

    def count_symbols(self, text: str) -> list[int] | None:
        """Return the symbols in each part of ``text``, to judge the length of its speech by; None: count characters."""
        return None

    def reference_waveform(self, speaker: str) -> NDArray[np.float32] | None:
        """Return how a built-in speaker is to sound, at :attr:`sample_rate`, shape [samples]; None: not known."""
        return None
