"""Rows of tokens that teacher and student learn from: streams, and single utterances.

    BEGIN, 75 codes of the speaker | TEXT phones SPEECH, codes | TEXT phones SPEECH, codes | ... | END

A single utterance is a stream of one block, so that both are collated by :class:`~wandlib.StreamCollator`. A pass over
the speech has every utterance once, in one kind of row or in the other; the next pass draws anew, and its codes are of
another shift (:data:`~recipes.mini.encode.SHIFTS`): most are other codes, so that as many passes as there are shifts
read little twice. Of the same codes, models of this size learn 20 hours by heart in three. A row, its reference
included, has one speaker and one speaking rate, which the reference tells; where there is little speech (what is held
out, small shares), one speaker.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recipes.mini.align import Plan
from recipes.mini.encode import SHIFTS
from recipes.mini.spoken import Spoken
from wandlib.distillation.streams import StreamCollator, length_of, streams_of
from wandlib.systems.mini.prompt import BEGIN, END, FIRST_CODE, FIRST_SYMBOL, SPEECH, TEXT

REFERENCE = 75
"""Codes of the reference: 3 s."""
PINNED = 1 + REFERENCE
"""Tokens that no decode forgets: BEGIN and the reference."""
ROW_TOKENS = 640
"""Tokens of a row at most, 15 to 20 s; of the corpus, one utterance in three hundred does not fit."""
MAX_GAP = 150_000
"""Positions that the reference may be away from what is spoken: an hour's codes and text."""
PASSES = len(SHIFTS)
FEWEST_SOURCES = 4
"""Utterances of ``REFERENCE`` codes that a speaker of streams needs; others come as single utterances."""

Read = dict[str, Any]
"""An utterance as :func:`~wandlib.distillation.streams.streams_of` takes it."""
Row = dict[str, Any]
"""A sample of :class:`~wandlib.StreamCollator`, and the numbers of its ``utterances``."""


def readers(spoken: Sequence[Spoken]) -> list[Hashable]:
    """Name who reads each utterance: a speaker at one speaking rate, or at any where there is too little of some rate.

    Enough are :data:`FEWEST_SOURCES` utterances to take references from.
    """
    sources = Counter((one.speaker, one.speed) for one in spoken if one.length >= REFERENCE)
    mixed = {one.speaker for one in spoken if sources[one.speaker, one.speed] < FEWEST_SOURCES}
    return [one.speaker if one.speaker in mixed else (one.speaker, one.speed) for one in spoken]


class Speech:
    """Utterances to make rows of; those of a speaker without a second long utterance, and those too long, are left out.

    Raises
    ------
    ValueError
        Where none is left.
    """

    def __init__(self, spoken: Sequence[Spoken]) -> None:
        room = ROW_TOKENS - PINNED - 1
        fitting = [one for one in spoken if one.length and len(one.symbols) + 2 + one.length <= room]
        long = Counter(one.speaker for one in fitting if one.length >= REFERENCE)
        self.spoken = [one for one in fitting if long[one.speaker] > 1]
        if not self.spoken:
            raise ValueError(f"no speaker with two utterances of {REFERENCE} codes or more, one to take a reference of")
        self.readers, self.sources = readers(self.spoken), defaultdict[Hashable, list[int]](list)
        for number, (one, reader) in enumerate(zip(self.spoken, self.readers, strict=True)):
            if one.length >= REFERENCE:
                self.sources[reader].append(number)

    def _read(self, shift: int) -> list[Read]:
        """Return the tokens of all utterances at a shift."""
        return [
            {
                "speaker": reader,
                "text": [TEXT, *(FIRST_SYMBOL + symbol for symbol in one.symbols), SPEECH],
                "codes": (FIRST_CODE + one.codes[shift % len(one.codes)]).tolist(),
            }
            for one, reader in zip(self.spoken, self.readers, strict=True)
        ]

    def rows(self, seed: int) -> list[Row]:
        """Return one pass: as many streams as single utterances, and what fits no stream; in random order."""
        rng, read = random.Random(f"{seed} rows"), self._read(seed)
        everything = list(range(len(read)))
        trial = self._streams(read, everything, seed)
        blocks = sum(len(row["blocks"]) for row in trial) / max(1, len(trial))
        single = set(rng.sample(everything, round(len(everything) / (1 + blocks)))) if trial else set(everything)
        streams = self._streams(read, [number for number in everything if number not in single], seed)
        streamed = {number for row in streams for number in row["utterances"]}
        rows = streams + [self._single(read, number, rng) for number in everything if number not in streamed]
        return rng.sample(rows, len(rows))

    def _streams(self, read: list[Read], numbers: list[int], seed: int) -> list[Row]:
        """Rows of several utterances, of readers with enough to take references from."""
        sources = Counter(self.readers[n] for n in numbers if self.spoken[n].length >= REFERENCE)
        usable = [n for n in numbers if sources[self.readers[n]] >= FEWEST_SOURCES]
        made = streams_of(
            [read[n] for n in usable], begin=[BEGIN], reference=REFERENCE, max_length=ROW_TOKENS, seed=seed
        )
        return [row | {"utterances": [usable[index] for index in row["utterances"]]} for row in made]

    def _single(self, read: list[Read], number: int, rng: random.Random) -> Row:
        """Return a row of one utterance, after the start of another one of the reader."""
        utterance = read[number]
        source = rng.choice([n for n in self.sources[self.readers[number]] if n != number])
        pinned = [BEGIN, *read[source]["codes"][:REFERENCE]]
        return {"pinned": pinned, "blocks": [(utterance["text"], utterance["codes"])], "utterances": [number]}

    def attended(self, rows: Sequence[Row], length: int) -> Tensor:
        """Return, for each position that predicts a code, the position of the symbol being spoken; -1 for the others.

        Shape [rows, length]. The end of a block is predicted while its last symbol is spoken.
        """
        found = torch.full((len(rows), length), -1)
        for target, row in zip(found, rows, strict=True):
            start = len(row["pinned"])
            for number in row["utterances"]:
                one = self.spoken[number]
                first = start + len(one.symbols) + 1  # SPEECH, which predicts the first code
                if len(one.positions):
                    target[first : first + one.length] = torch.from_numpy(one.positions.astype(np.int64)) + start + 1
                    target[first + one.length] = start + len(one.symbols)
                start = first + 1 + one.length
        return found


def wordless(row: Row) -> Row:
    """Return the row with texts that say nothing: what comes next, the codes alone tell."""
    return row | {"blocks": [([TEXT, SPEECH], codes) for _, codes in row["blocks"]], "utterances": []}


def row_length(row: Row) -> int:
    """Count the tokens of a row, END included."""
    return len(row["pinned"]) + sum(length_of({"text": text, "codes": codes}) for text, codes in row["blocks"]) + 1


def collator(max_gap: int = MAX_GAP, **options: Any) -> StreamCollator:
    """Return what makes batches of rows; lengths are rounded up, so that few matrix kernels are built and kept."""
    return StreamCollator(end=END, max_gap=max_gap, pad_token_id=END, pad_to_multiple_of=32, **options)


def in_batches(rows: Sequence[Row], size: int, seed: int, pool: int = 50) -> list[Row]:
    """Order rows so that each ``size`` of them are of like length, and long and short batches come in random order.

    Within ``pool`` batches the rows are sorted, so that little is padding. transformers' ``group_by_length`` leaves
    them sorted: streams would come first and single utterances last, and what a schedule does at a step would depend
    on how much speech there is.
    """
    rng, found = random.Random(f"{seed} batches"), list[Row]()
    for start in range(0, len(rows), pool * size):
        some = sorted(rows[start : start + pool * size], key=row_length)
        whole = len(some) // size
        for batch in rng.sample(range(whole), whole):
            found += some[batch * size : (batch + 1) * size]
        found += some[whole * size :]
    return found


class Passes:
    """Batches of rows by number, one pass over the speech after the other; any can be asked for at any time.

    Parameters
    ----------
    speech
        What is read.
    budget
        Tokens of a batch.
    passes
        How often.
    first
        Number of the first pass: others are of other rows, and the next ones of other codes.
    """

    def __init__(self, speech: Speech, budget: int, passes: int = PASSES, first: int = 0) -> None:
        self.speech, self.budget, self.first = speech, budget, first
        self.sizes = []
        for number in range(first, first + passes):
            self._open(number)
            self.sizes.append(self.plan.per_epoch)

    def _open(self, number: int) -> None:
        self.number, self.rows = number, self.speech.rows(number)
        self.plan = Plan([row_length(row) for row in self.rows], self.budget)

    def __len__(self) -> int:
        return sum(self.sizes)

    def __getitem__(self, index: int) -> list[Row]:
        for number, size in enumerate(self.sizes, self.first):
            if index < size:
                if number != self.number:
                    self._open(number)
                return [self.rows[place] for place in self.plan[index]]
            index -= size
        raise IndexError(f"there are {len(self)} batches")
