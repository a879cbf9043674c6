"""Sweep: a decode measured at places along it, and the time of the whole by interpolation.

Caches are filled up to each place with random keys (:func:`benchmarks.caches.fill`) and take a few steps there, all
baselines at all places interleaved. A step's time is a smooth function of the cache's length, so the sum over a decode
follows by linear interpolation; the benchmark ``growth`` compares this with complete decodes, of which each round runs
a piece, since a machine may be twice as fast in one minute as in the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.caches import BASELINES, fill
from benchmarks.floor import Floor
from benchmarks.shapes import Shape
from benchmarks.timing import Generate, Runner, Steps, interleave, ratio

FLOOR = "floor"


@dataclass(frozen=True)
class Sweep:
    """Milliseconds of a step, by baseline, place and round."""

    title: str
    rate: float
    """Steps for a second of speech."""
    seconds: tuple[float, ...]
    """Places along the decode, in seconds of generated speech."""
    visit: int
    """Steps by which each visit advances a decode."""
    milliseconds: dict[str, list[list[float]]]
    """Milliseconds of a step: for each baseline, for each place, a number for each round."""
    floor: list[float]
    """Milliseconds of the bare kernels, for each round."""
    whole: dict[str, list[float]] = field(default_factory=dict)
    """For each baseline that also ran a complete decode, the median over the piece of each round."""
    piece: int = 0
    """Steps of such a piece; the first piece is the warm-up."""

    def at(self, baseline: str, seconds: float) -> list[float]:
        """Return the milliseconds of a step at a place, by round."""
        return self.milliseconds[baseline][self.seconds.index(seconds)]

    def total(self, baseline: str, seconds: float) -> list[float]:
        """Return the milliseconds of a whole decode of ``seconds`` of speech, by round."""
        steps = round(seconds * self.rate)
        if BASELINES[baseline].reserved:
            return [steps * taken for taken in self.at(baseline, seconds)]
        return [float(self.between(baseline, number, np.arange(steps)).sum()) for number in range(len(self.floor))]

    def between(self, baseline: str, number: int, steps: Any) -> Any:
        """Interpolate the milliseconds of the steps with these numbers in one round."""
        places = np.array([round(place * self.rate) for place in self.seconds])
        reached = places + (number + 1.5) * self.visit  # the middle of this visit, after the warm-up
        return np.interp(steps, reached, [rounds[number] for rounds in self.milliseconds[baseline]])

    def interpolation_error(self, baseline: str) -> float:
        """Return the difference between interpolation and the complete decode, as a share of the latter."""
        predicted = [float(self.between(baseline, n, (n + 1.5) * self.piece)) for n in range(len(self.floor))]
        return abs(ratio(predicted, self.whole[baseline]) - 1)

    def to_json(self) -> dict[str, Any]:
        """Return medians over the rounds."""
        medians = {name: [statistics.median(rounds) for rounds in places] for name, places in self.milliseconds.items()}
        floor = statistics.median(self.floor)
        return {"title": self.title, "seconds": list(self.seconds), "milliseconds": medians, FLOOR: floor}


def sweep(
    title: str,
    shape: Shape,
    dtype: torch.dtype,
    *,
    device: str,
    baselines: Sequence[str],
    seconds: tuple[float, ...],
    rounds: int,
    steps: int,
    batch: int = 1,
    whole: Sequence[str] = (),
) -> Sweep:
    """Measure stock ``generate`` with the caches of ``baselines`` at the places ``seconds``, and the floor.

    The baselines named in ``whole`` also run a complete decode, a piece in each round.
    """
    stock, converted = shape.build(dtype, device)
    rows = batch * shape.beams
    floor = Floor(stock, batch=rows, slots=shape.conditioning + shape.window)
    runners: dict[tuple[str, float], Runner] = {(FLOOR, 0.0): Steps(floor, device)}
    visit = steps + 1
    for place in seconds:
        for name in baselines:
            length = shape.conditioning + shape.steps(place) + (rounds + 1) * visit
            cache = BASELINES[name].cache(shape, length)
            fill(cache, shape, shape.steps(place), batch=rows, dtype=dtype, device=device)
            model = converted if BASELINES[name].windowed else stock
            runners[name, place] = Generate(model, cache, prompt=shape.conditioning, batch=batch, beams=shape.beams)
    piece = shape.steps(seconds[-1]) // (rounds + 1)
    for name in whole:
        cache = BASELINES[name].cache(shape, 0)
        model = converted if BASELINES[name].windowed else stock
        decode = Generate(model, cache, prompt=shape.conditioning, batch=batch, beams=shape.beams)
        runners[name, -1.0] = partial(lambda decode, steps: decode(piece - 1), decode)
    taken = interleave(runners, rounds=rounds, steps=steps)
    milliseconds = {name: [taken[name, place] for place in seconds] for name in baselines}
    pieces = {name: taken[name, -1.0] for name in whole}
    return Sweep(title, shape.codes_per_second, seconds, visit, milliseconds, taken[FLOOR, 0.0], pieces, piece)
