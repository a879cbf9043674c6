"""Which phone sounds when: a small phone recognizer, trained with CTC, then forced alignment.

It needs no timing from the synthesizer, so it serves human speech as well. Codec and teacher use the
result in training only: the rate of the codes is measured with it, and two of the teacher's heads are pulled towards
the phone being spoken.
"""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from recipes.mini import analysis
from recipes.mini import corpus as shards
from recipes.mini.files import whole, write_json
from recipes.mini.loop import autocast, join, train
from wandlib.systems.mini.features import BANDS, FRAMES_PER_CODE
from wandlib.systems.mini.layers import ConvNeXt
from wandlib.systems.mini.text import SPACE, SYMBOLS, Phonemizer

STRIDE = 2
BLANK = 0
BATCH_FRAMES = 16_000
"""Mel frames in a batch."""


class Recognizer(nn.Module):
    """Mel spectra to log-probabilities of symbols, 50 frames a second; symbol i has number i + 1, 0 is blank."""

    def __init__(self, width: int = 192, layers: int = 5) -> None:
        super().__init__()
        self.enter = nn.Linear(BANDS * STRIDE, width)
        self.blocks = nn.ModuleList([ConvNeXt(width, 2, 9) for _ in range(layers)])
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(SYMBOLS) + 1))

    def forward(self, mel: Float[Tensor, "batch frames 80"]) -> Float[Tensor, "batch steps symbols"]:
        return self.leave(self.features(mel)[-1]).float().log_softmax(-1)

    def features(self, mel: Float[Tensor, "batch frames 80"]) -> list[Tensor]:
        """Return what each block makes of the spectra, [batch, steps, width] each."""
        found = [self.enter(mel.unflatten(1, (-1, STRIDE)).flatten(2))]
        for block in self.blocks:
            found.append(block(found[-1]))
        return found[1:]


def phones(corpus: Path) -> list[list[int]]:
    """Symbol numbers of every utterance, in order; kept in ``corpus/phones.json``."""
    path = corpus / "phones.json"
    items = analysis.read(corpus)
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if len(found) == len(items):
            return found
    phonemize = Phonemizer()
    found = [[SYMBOLS.index(s) for s in phonemize(item.utterance.text)] for item in tqdm(items, desc="phones")]
    write_json(path, found)
    return found


def spoken(symbols: list[int]) -> list[int]:
    """Positions of the symbols that take time: all but spaces."""
    return [position for position, symbol in enumerate(symbols) if SYMBOLS[symbol] != SPACE]


class Plan:
    """Batches of similar length by step number: each epoch shuffles anew, and any step can be asked for at any time.

    A batch holds as many utterances as keep its longest times their number within ``budget``.
    """

    def __init__(self, lengths: list[int], budget: int) -> None:
        self.lengths, self.budget = lengths, budget
        self.epoch, self.batches = 0, self._shuffled(0)
        self.per_epoch = len(self.batches)

    def __getitem__(self, step: int) -> list[int]:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.batches = epoch, self._shuffled(epoch)
        return self.batches[place % len(self.batches)]

    def _shuffled(self, seed: int) -> list[list[int]]:
        rng = random.Random(seed)
        order = sorted(range(len(self.lengths)), key=lambda i: self.lengths[i] * (1 + 0.1 * rng.random()))
        found: list[list[int]] = [[]]
        longest = 0
        for index in order:
            longest = max(longest, self.lengths[index])
            if found[-1] and longest * (len(found[-1]) + 1) > self.budget:
                found.append([])
                longest = self.lengths[index]
            found[-1].append(index)
        rng.shuffle(found)
        return found


def run(folder: Path, corpus: Path, total_steps: int = 1_500, seconds: float | None = None) -> Recognizer:
    """Train the recognizer, or go on where ``folder/aligner.pt`` stands."""
    world, rank = join()
    torch.manual_seed(0)
    items, symbols = analysis.read(corpus), phones(corpus)
    usable = [i for i, item in enumerate(items) if item.frames // STRIDE > 2 * len(symbols[i])][shards.HELD_OUT :]
    model = Recognizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    plan = Plan([items[i].frames for i in usable], BATCH_FRAMES)

    def step(number: int) -> dict[str, Tensor]:
        chosen = [usable[i] for i in plan[number * world + rank]]
        return {"loss": ctc(model, [items[i] for i in chosen], [symbols[i] for i in chosen])}

    def validate() -> dict[str, float]:
        return {"loss": float(ctc(model, items[:64], symbols[:64]))}

    train("aligner", folder, model, [optimizer], step, total_steps, validate, hold=0.3, every=100, seconds=seconds)
    return model.eval()


def ctc(model: Recognizer, items: list[analysis.Analyzed], symbols: list[list[int]]) -> Tensor:
    """Mean CTC loss per symbol."""
    frames = max(item.frames for item in items)
    mel, _ = analysis.batch_of([(item, 0) for item in items], frames)
    with autocast():
        scores = model(mel)
    targets = [[row[p] + 1 for p in spoken(row)] for row in symbols]
    return nn.functional.ctc_loss(
        scores.transpose(0, 1),
        torch.tensor([symbol for row in targets for symbol in row]),
        torch.tensor([item.frames // STRIDE for item in items]),
        torch.tensor([len(row) for row in targets]),
        BLANK,
        zero_infinity=True,
    )


@torch.no_grad()
def align(model: Recognizer, item: analysis.Analyzed, symbols: list[int]) -> NDArray[np.int16]:
    """For each code of the utterance, the position in ``symbols`` of what is being spoken; monotonic.

    A CTC path names each symbol for a frame or two and is blank between: the border between two symbols is set halfway.
    """
    from torchaudio.functional import forced_align

    positions = spoken(symbols)
    codes = item.frames // FRAMES_PER_CODE
    mel, _ = analysis.batch_of([(item, 0)], item.frames)
    with autocast():
        scores = model(mel)
    path, _ = forced_align(scores, torch.tensor([[symbols[p] + 1 for p in positions]]), blank=BLANK)
    return np.asarray(spread(path[0].tolist(), positions, codes), np.int16)


def spread(path: list[int], positions: list[int], codes: int) -> list[int]:
    """Turn a CTC path (one label a step, 0 for blank) into one position a code."""
    centers: list[float] = []
    start = None
    for step, label in enumerate([*path, BLANK]):
        if start is not None and label != path[start]:
            centers.append((start + step - 1) / 2)
            start = None
        if start is None and label != BLANK:
            start = step
    if len(centers) != len(positions):
        raise ValueError(f"the path names {len(centers)} symbols, the text has {len(positions)}")
    borders = [(one + two) / 2 for one, two in pairwise(centers)]
    steps = (np.arange(codes) + 0.5) * FRAMES_PER_CODE / STRIDE - 0.5
    return [positions[index] for index in np.searchsorted(borders, steps)]


def load_recognizer(folder: Path) -> Recognizer:
    """Load the averaged weights of ``folder/aligner.pt``."""
    model = Recognizer()
    model.load_state_dict(torch.load(folder / "aligner.pt", weights_only=True)["average"])
    return model.eval()


def align_corpus(folder: Path, corpus: Path) -> list[NDArray[np.int16]]:
    """Alignments of every utterance; kept in ``corpus/alignment.npz``. An utterance that cannot be aligned is empty."""
    path = corpus / "alignment.npz"
    items, symbols = analysis.read(corpus), phones(corpus)
    trained = torch.load(folder / "aligner.pt", weights_only=True)["step"]
    if path.exists():
        stored = np.load(path)
        if stored["aligner"] == trained and len(stored["ends"]) == len(items):
            return np.split(stored["positions"], stored["ends"][:-1])
    model = load_recognizer(folder)
    found = []
    for item, row in zip(tqdm(items, desc="alignment"), symbols, strict=True):
        fits = item.frames // STRIDE > len(row) + sum(a == b for a, b in pairwise(row))
        found.append(align(model, item, row) if fits else np.zeros(0, np.int16))
    ends = np.cumsum([len(row) for row in found])
    with whole(path) as partial:
        np.savez(partial, positions=np.concatenate(found), ends=ends, aligner=trained)
    return found
