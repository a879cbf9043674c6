"""Many texts in one decode: each sentence ends for itself, and the next text takes its place.

A step of a batch reads the weights once for all of its sequences, and under the window each of them brings a cache that
does not grow. Prompts are of different lengths and are prefilled one by one; then their entries join the batch
(:mod:`wandlib.systems.batch_cache`).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from itertools import repeat, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wandlib.attention.models import cache_inputs, inner_model, sliding_windows
from wandlib.profiling.measure import held_bytes
from wandlib.systems.batch_cache import Entries, join, take
from wandlib.systems.decoding import Utterance, attention_of, new_cache
from wandlib.systems.settings import InputError, check_reference
from wandlib.systems.speech import Chunk, Speech, Trace
from wandlib.systems.streaming import Piece

References = str | Path | None | Iterable[str | Path | None]
"""One for all texts, or one for each."""


def paired(texts: Iterable[str], references: References) -> Iterator[tuple[str, str | Path | None]]:
    """Yield each text with its reference, as they come.

    Raises
    ------
    InputError
        If the texts are one str, the references are neither one nor several, or there are more of one kind than of
        the other.
    """
    if isinstance(texts, str):
        raise InputError(f"the texts are several str, not one ({texts[:40]!r}): give [text], or call synthesize")
    if isinstance(references, bytes) or not isinstance(references, Iterable):
        references = check_reference(references)
    if references is None or isinstance(references, str | Path):
        yield from zip(texts, repeat(references))
        return
    if isinstance(texts, Sized) and isinstance(references, Sized) and len(texts) != len(references):
        raise InputError(f"there are {len(texts)} texts and {len(references)} references: give one for each")
    nothing: Any = object()
    for number, (text, reference) in enumerate(zip_longest(texts, references, fillvalue=nothing)):
        if text is nothing or reference is nothing:
            fewer, more = ("texts", "references") if text is nothing else ("references", "texts")
            raise InputError(f"there are {number} {fewer} and more {more}: give one for each")
        yield text, reference


@dataclass
class Job:
    """One text of many: its utterances, and what has become of them.

    Attributes
    ----------
    index
        Which of the texts it is.
    text
        The text.
    utterances
        Its parts, made when their turn comes.
    trace
        Its share of the cost: of a step of n sequences, an n-th of its time and of its cache.
    """

    index: int
    text: str
    utterances: Iterator[Utterance]
    trace: Trace
    started: float = field(default_factory=time.perf_counter)
    codes: list[int] = field(default_factory=list)
    sounds: list[Any] = field(default_factory=list)

    def next_utterance(self, window: int | None) -> Utterance | None:
        """Return the next part, to be decoded with that window; None: there is none.

        Raises
        ------
        InputError
            If the system refuses the text, or the part cannot be decoded in a batch.
        """
        utterance = next(self.utterances, None)
        if utterance is None:
            self.trace.end()
            return None
        if utterance.conditioning_until is not None:
            raise InputError("a prompt that the model goes on with itself is decoded alone: use batch_size=1")
        if utterance.cache is not None:
            raise InputError("long='one cache' is decoded alone: use batch_size=1, or long='parts'")
        if window is None and len(set(sliding_windows(inner_model(utterance.model).config))) > 1:
            raise InputError("layers that remember differently far are batched under a window only: use batch_size=1")
        return utterance

    def speech(self, sample_rate: int) -> Speech:
        """Return what was said."""
        waveform = np.concatenate(self.sounds) if self.sounds else np.zeros(0, np.float32)
        seconds = time.perf_counter() - self.started
        self.trace.chunks.append(Chunk(seconds, len(waveform) / sample_rate))
        return Speech(waveform, sample_rate, np.array(self.codes, np.int64), self.trace, self.text, seconds)


@dataclass
class Sequence:
    """One utterance of a job, on its place in the batch."""

    job: Job
    utterance: Utterance
    past: list[int] = field(default_factory=list)
    entries: Entries | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return self.utterance.prompt.shape[1]

    @property
    def held_tokens(self) -> int:
        """Tokens that the model has seen: the last one that was generated, it has not."""
        return self.prompt_tokens + len(self.past) - 1

    def take_token(self, scores: Tensor) -> bool:
        """Choose a token; return whether the utterance goes on."""
        utterance, trace = self.utterance, self.job.trace
        token = utterance.choose(scores, self.past)
        self.past.append(token)
        if token in utterance.ends:
            return self._end()
        if len(self.past) > utterance.limit:
            trace.finish = "limit"
            return self._end()
        code = utterance.code(token)
        if code is not None:
            trace.parts[-1] += 1
            self.job.codes.append(code)
            self.job.sounds.append(utterance.sound.push(code))
        return True

    def _end(self) -> bool:
        self.job.sounds.append(self.utterance.sound.finish())
        return False


class Batch:
    """Sequences that are decoded together.

    Parameters
    ----------
    window
        In keys; None: full attention.
    """

    def __init__(self, window: int | None) -> None:
        self.window = window
        self.sequences: list[Sequence] = []
        self.cache: Any = None
        self.mask: Tensor | None = None
        """Under full attention: which tokens are none, [batch, tokens]."""

    def begin(self, sequence: Sequence) -> bool:
        """Run a prompt by itself, in a cache of its own; return whether its utterance goes on."""
        utterance, trace = sequence.utterance, sequence.job.trace
        trace.conditioning = trace.conditioning or sequence.prompt_tokens
        trace.parts.append(0)
        cache = new_cache(utterance.model, None if self.window is None else min(self.window, utterance.limit))
        name = "inputs_embeds" if utterance.prompt.is_floating_point() else "input_ids"
        clock = time.perf_counter()
        scores = self._call(utterance.model, cache, {name: utterance.prompt})
        goes_on = sequence.take_token(scores[0])
        trace.prefill_milliseconds += 1000 * (time.perf_counter() - clock)
        sequence.entries = take(cache, 0, sequence.prompt_tokens, sequence.prompt_tokens)
        return goes_on

    def place(self, sequences: list[Sequence]) -> None:
        """Go on with these sequences: those that were in the batch, and those that have begun."""
        entries = [self._entries(sequence) for sequence in sequences]
        window = self.window
        if window is not None:
            window = min(window, max(sequence.utterance.limit for sequence in sequences))
        self.cache = join(sequences[0].utterance.model, entries, window)
        if window is None:
            length = max(one.tokens for one in entries)
            start = torch.tensor([[length - one.tokens] for one in entries])
            self.mask = (torch.arange(length)[None] >= start).long().to(sequences[0].utterance.prompt.device)
        self.sequences = sequences
        for sequence in sequences:
            sequence.entries = None

    def step(self) -> list[Sequence]:
        """Generate one token of each sequence; return those that go on."""
        first, count, clock = self.sequences[0].utterance, len(self.sequences), time.perf_counter()
        each = [sequence.utterance.inputs(sequence.past[-1]) for sequence in self.sequences]
        inputs = {name: torch.cat([one[name] for one in each]) for name in each[0]}
        positions = torch.tensor([[sequence.held_tokens] for sequence in self.sequences], device=first.prompt.device)
        inputs["position_ids"] = positions
        if self.mask is not None:
            self.mask = torch.cat((self.mask, torch.ones_like(self.mask[:, :1])), 1)
            inputs["attention_mask"] = self.mask
        scores = self._call(first.model, self.cache, inputs)
        goes_on = [sequence.take_token(row) for sequence, row in zip(self.sequences, scores, strict=True)]
        milliseconds, held = 1000 * (time.perf_counter() - clock) / count, held_bytes(self.cache) // count
        for sequence in self.sequences:
            sequence.job.trace.add_step(milliseconds, held)
        return [sequence for sequence, on in zip(self.sequences, goes_on, strict=True) if on]

    def _entries(self, sequence: Sequence) -> Entries:
        if sequence.entries is not None:
            return sequence.entries
        row = next(n for n, other in enumerate(self.sequences) if other is sequence)
        return take(self.cache, row, sequence.prompt_tokens, sequence.held_tokens)

    def _call(self, model: Any, cache: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Return the scores of the next token, [batch, vocabulary]."""
        kept: dict[str, Any] = cache_inputs(model, cache) | {"use_cache": True}
        if "logits_to_keep" in inspect.signature(inner_model(model).forward).parameters:
            kept["logits_to_keep"] = 1
        with attention_of(model, self.window):
            scores: Tensor = model(**inputs, **kept).logits[:, -1]
        return scores


Finished = tuple[Job, InputError | None]
"""A job that is done, or the error of a text that the system refuses."""


def decode_alone(job: Job, pieces: Iterator[Piece]) -> Finished:
    """Return a job that is done by itself, for a system with a search of its own."""
    try:
        for codes, sound in pieces:
            job.codes += codes
            job.sounds.append(sound)
    except InputError as error:
        return job, error
    return job, None


@torch.inference_mode()
def decode_many(jobs: Iterable[Job], window: int | None, batch_size: int) -> Iterator[Finished]:
    """Yield each job when it is done.

    Parameters
    ----------
    jobs
        Taken one by one, as places become free; all for the same model. Where it raises, those that were taken are
        finished first.
    window
        In keys; None: full attention.
    batch_size
        Places.
    """
    waiting, batch = iter(jobs), Batch(window)
    running: list[Sequence] = []
    unfinished: list[Job] = []
    """Jobs whose utterance has ended, and whose next one has not begun."""
    broken: Exception | None = None
    """What ``jobs`` has raised."""
    while True:
        begun: list[Sequence] = []
        while len(running) + len(begun) < batch_size:
            try:
                job = unfinished.pop() if unfinished else next(waiting, None)
            except Exception as error:
                job, broken = None, error
            if job is None:
                break
            try:
                utterance = job.next_utterance(window)
            except InputError as error:
                yield job, error
                continue
            if utterance is None:
                yield job, None
                continue
            sequence = Sequence(job, utterance)
            if batch.begin(sequence):
                begun.append(sequence)
            else:
                unfinished.append(job)
        if not running and not begun:
            if broken is not None:
                raise broken
            return
        if begun or len(running) < len(batch.sequences):
            batch.place([*running, *begun])
        running = batch.step()
        stopped = [sequence.job for sequence in batch.sequences if sequence not in running]
        unfinished += stopped
