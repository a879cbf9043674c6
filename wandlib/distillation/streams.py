"""Streams: rows of text blocks and their codes after one pinned reference, for a student whose text expires.

    pinned | text 1 | codes 1 | text 2 | codes 2 | ... | END

The last code of a block predicts END, which is not fed within a stream: the next text follows. As labels are aligned
with the input and position t - 1 predicts label t, the label of the first token of every later text is END; only the
END of the last block stands in the row itself, where nothing follows it.

In a long decode the distance to the pinned part grows without bound. So that it never surprises, positions jump after
it, by exp(U(0, ln max_gap)) in some of the rows.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wandlib.attention.checks import check_number
from wandlib.distillation.collator import WandCollator
from wandlib.distillation.losses import IGNORE_INDEX


@dataclass(frozen=True)
class StreamCollator:
    """Pad streams into a batch: input_ids, labels, conditioning, block, attention_mask, position_ids.

    A sample is a mapping with ``pinned``, token ids (possibly none), and ``blocks``, pairs of the token ids of a text,
    its marks included, and of its codes, without END. ``block`` is 0 for what is pinned, then the number of the latest
    text block, from 1.

    The gap of a row depends on ``seed`` and on its tokens alone: it is the same in every process, with any number of
    workers, after resuming, and in every epoch.

    Parameters
    ----------
    end
        Token id of END.
    max_gap
        Largest gap in positions after the pinned part; 0: none. Learned positions must reach as far.
    no_gap
        Share of the rows without a gap.
    seed
        For the gaps.
    pad_token_id, pad_to_multiple_of
        As for :class:`~wandlib.distillation.collator.WandCollator`.
    max_length
        Tokens of a row, its END included; a longer one is an error. None: no limit.

    Raises
    ------
    ValueError
        If ``max_gap`` or ``pad_token_id`` is negative, ``no_gap`` is no share, or ``pad_to_multiple_of`` is below 1.
    """

    end: int
    max_gap: int = 0
    no_gap: float = 2 / 3
    seed: int = 0
    pad_token_id: int = 0
    max_length: int | None = None
    pad_to_multiple_of: int = 1

    def __post_init__(self) -> None:
        if self.max_gap < 0:
            raise ValueError(f"max_gap is a number of positions, at least 0; got {self.max_gap}")
        if not 0 <= self.no_gap <= 1:
            raise ValueError(f"no_gap is the share of rows without a gap, from 0 to 1; got {self.no_gap}")
        self._of_rows()  # which checks its numbers

    def _of_rows(self) -> WandCollator:
        """Return what makes a batch of rows."""
        return WandCollator(self.pad_token_id, pad_to_multiple_of=self.pad_to_multiple_of)

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Raises
        ------
        ValueError
            If a stream has no block, a block has no text or no codes, or a row is too long.
        """
        return self._of_rows()(
            [self._row(sample, f"stream {index} of the batch") for index, sample in enumerate(samples)]
        )

    def _row(self, sample: Mapping[str, Any], where: str) -> dict[str, Tensor]:
        if not {"pinned", "blocks"} <= set(sample) or not len(sample["blocks"]):
            raise ValueError(f"{where} needs pinned, and blocks of (text, codes); it has {', '.join(sorted(sample))}")
        pinned = [int(token) for token in sample["pinned"]]
        ids, labels = list(pinned), [IGNORE_INDEX] * len(pinned)
        conditioning, block = [True] * len(pinned), [0] * len(pinned)
        for number, (text, codes) in enumerate(sample["blocks"], 1):
            if not len(text) or not len(codes):
                raise ValueError(
                    f"block {number} of {where} has {len(text)} text tokens and {len(codes)} codes: leave it out"
                )
            said = [int(code) for code in codes]
            ids += [*map(int, text), *said]
            labels += [IGNORE_INDEX if number == 1 else self.end, *[IGNORE_INDEX] * (len(text) - 1), *said]
            conditioning += [True] * len(text) + [False] * len(said)
            block += [number] * (len(text) + len(said))
        ids, labels, conditioning, block = (
            [*ids, self.end],
            [*labels, self.end],
            [*conditioning, False],
            [*block, block[-1]],
        )
        if self.max_length is not None and len(ids) > self.max_length:
            raise ValueError(
                f"{where} has {len(ids)} tokens and max_length is {self.max_length}: put fewer blocks in a row"
            )
        position_ids = torch.arange(len(ids))
        position_ids[len(pinned) :] += self.gap(ids)
        return {
            "input_ids": torch.tensor(ids),
            "labels": torch.tensor(labels),
            "conditioning": torch.tensor(conditioning),
            "block": torch.tensor(block),
            "position_ids": position_ids,
        }

    def gap(self, ids: Sequence[int]) -> int:
        """Draw the gap of a row of tokens."""
        draw = random.Random(f"{self.seed} {list(ids)}")
        if draw.random() < self.no_gap or self.max_gap == 0:
            return 0
        return round(math.exp(draw.uniform(0, math.log(self.max_gap))))


def streams_of(
    utterances: Sequence[Mapping[str, Any]],
    *,
    begin: Sequence[int] = (),
    reference: int = 75,
    max_length: int = 640,
    stop: float = 0.12,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Make streams out of single utterances: each has one speaker, whose utterances follow in random order.

    Every utterance is in one stream; a stream names them, by number, in ``utterances``. Another ``seed`` gives other
    streams, for the next epoch.

    Parameters
    ----------
    utterances
        Of ``speaker``, any hashable, ``text``, token ids with their marks, and ``codes``, without END.
    begin, reference
        The pinned part is ``begin`` and then so many codes from the start of an utterance of the speaker that is not in
        the row: equally long in all rows, as ``convert(..., pinned=len(begin) + reference)`` needs it.
    max_length
        Tokens of a row, END included.
    stop
        Probability that a row ends after a block, so that single sentences stay in.
    seed
        For the order, the references and the ends.

    Raises
    ------
    ValueError
        If an utterance does not fit ``max_length``, or a speaker has no other utterance to take a reference from.
    """
    if not 0 <= stop <= 1:
        raise ValueError(f"stop is the probability that a row ends after a block, from 0 to 1; got {stop}")
    reference = check_number("reference, in codes,", reference, 0)
    draw, room = random.Random(seed), max_length - len(begin) - reference - 1  # 1: END
    of_speaker: dict[Hashable, list[int]] = {}
    for index, utterance in enumerate(utterances):
        if length_of(utterance) > room:
            raise ValueError(
                f"utterance {index} has {length_of(utterance)} tokens, and {room} fit a row of max_length={max_length} "
                "after the pinned part: leave it out, or raise max_length"
            )
        of_speaker.setdefault(utterance["speaker"], []).append(index)
    streams = []
    for speaker, mine in of_speaker.items():
        sources = [index for index in mine if len(utterances[index]["codes"]) >= reference]
        waiting = deque(draw.sample(mine, len(mine)))
        while waiting:
            others = [index for index in sources if index != waiting[0]]
            if reference and not others:
                raise ValueError(
                    f"speaker {speaker!r} has no other utterance of {reference} codes to take a reference from: leave "
                    "the speaker out, or shorten reference"
                )
            source, left, blocks = draw.choice(others) if reference else None, room, []
            numbers = list[int]()
            while waiting and waiting[0] != source and length_of(utterances[waiting[0]]) <= left:
                numbers.append(waiting.popleft())
                utterance = utterances[numbers[-1]]
                left -= length_of(utterance)
                blocks.append((list(utterance["text"]), list(utterance["codes"])))
                if draw.random() < stop:
                    break
            pinned = [*begin, *(utterances[source]["codes"][:reference] if source is not None else ())]
            streams.append({"pinned": pinned, "blocks": blocks, "utterances": numbers})
    return draw.sample(streams, len(streams))


def length_of(utterance: Mapping[str, Any]) -> int:
    """Count the tokens of an utterance, text and codes."""
    return len(utterance["text"]) + len(utterance["codes"])
