"""A decode measured at places along it, and what the whole of it would take.

Rivals are filled up to each place with random keys (:func:`benchmarks.caches.fill`) and take a few steps there, all
rivals at all places in turn. A step's time is a smooth function of how much the cache holds, so the sum over a decode
follows by linear interpolation; the benchmark ``growth`` holds this against decodes that are run whole, a piece in each
round, for a machine may be twice as fast in one minute as in the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.caches import RIVALS, fill
from benchmarks.floor import Floor
from benchmarks.shapes import Shape
from benchmarks.timing import Generate, Runner, Steps, in_turn, ratio

FLOOR = "floor"


@dataclass(frozen=True)
class Sweep:
    """Milliseconds of a step, by rival, place and round."""

    title: str
    rate: float
    """Steps for a second of speech."""
    seconds: tuple[float, ...]
    """The places, in seconds of speech generated."""
    visit: int
    """Steps that each visit moves a decode on by."""
    ms: dict[str, list[list[float]]]
    """For each rival, for each place, a number for each round."""
    floor: list[float]
    """The bare kernels, a number for each round."""
    whole: dict[str, list[float]] = field(default_factory=dict)
    """For each rival that was also run whole, the median of the piece that fell into each round."""
    piece: int = 0
    """Steps of such a piece; the first is the warm-up's."""

    def at(self, rival: str, seconds: float) -> list[float]:
        """Milliseconds of a step at a place, by round."""
        return self.ms[rival][self.seconds.index(seconds)]

    def total(self, rival: str, seconds: float) -> list[float]:
        """Milliseconds of a whole decode of ``seconds`` of speech, by round."""
        steps = round(seconds * self.rate)
        if RIVALS[rival].reserved:
            return [steps * ms for ms in self.at(rival, seconds)]
        return [float(self.between(rival, number, np.arange(steps)).sum()) for number in range(len(self.floor))]

    def between(self, rival: str, number: int, steps: Any) -> Any:
        """Milliseconds of the steps with these numbers, between the places, in one round."""
        places = np.array([round(place * self.rate) for place in self.seconds])
        reached = places + (number + 1.5) * self.visit  # the middle of this visit; one was to warm up
        return np.interp(steps, reached, [rounds[number] for rounds in self.ms[rival]])

    def apart(self, rival: str) -> float:
        """How far what follows from the places is from the decode that was run whole, as a share of it."""
        predicted = [float(self.between(rival, n, (n + 1.5) * self.piece)) for n in range(len(self.floor))]
        return abs(ratio(predicted, self.whole[rival]) - 1)

    def to_json(self) -> dict[str, Any]:
        """Medians over the rounds."""
        ms = {rival: [statistics.median(rounds) for rounds in places] for rival, places in self.ms.items()}
        floor = statistics.median(self.floor)
        return {"title": self.title, "seconds": list(self.seconds), "ms": ms, FLOOR: floor}


def sweep(
    title: str,
    shape: Shape,
    dtype: torch.dtype,
    *,
    device: str,
    rivals: Sequence[str],
    seconds: tuple[float, ...],
    rounds: int,
    steps: int,
    batch: int = 1,
    whole: Sequence[str] = (),
) -> Sweep:
    """Measure stock ``generate`` with the caches of ``rivals`` at the places ``seconds``, with the floor beside.

    The rivals named in ``whole`` also decode from start to end, a piece in each round.
    """
    stock, converted = shape.build(dtype, device)
    rows = batch * shape.beams
    floor = Floor(stock, batch=rows, slots=shape.prompt + shape.window)
    runners: dict[tuple[str, float], Runner] = {(FLOOR, 0.0): Steps(floor, device)}
    visit = steps + 1
    for place in seconds:
        for name in rivals:
            length = shape.prompt + shape.steps(place) + (rounds + 1) * visit
            cache = RIVALS[name].cache(shape, length)
            fill(cache, shape, shape.steps(place), batch=rows, dtype=dtype, device=device)
            model = converted if RIVALS[name].windowed else stock
            runners[name, place] = Generate(model, cache, prompt=shape.prompt, batch=batch, beams=shape.beams)
    piece = shape.steps(seconds[-1]) // (rounds + 1)
    for name in whole:
        cache = RIVALS[name].cache(shape, 0)
        model = converted if RIVALS[name].windowed else stock
        decode = Generate(model, cache, prompt=shape.prompt, batch=batch, beams=shape.beams)
        runners[name, -1.0] = partial(lambda decode, steps: decode(piece - 1), decode)
    taken = in_turn(runners, rounds=rounds, steps=steps)
    ms = {name: [taken[name, place] for place in seconds] for name in rivals}
    pieces = {name: taken[name, -1.0] for name in whole}
    return Sweep(title, shape.rate, seconds, visit, ms, taken[FLOOR, 0.0], pieces, piece)
