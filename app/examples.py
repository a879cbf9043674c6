"""The stored result as sides, so that the curves show something before anything was said."""

from __future__ import annotations

from dataclasses import dataclass

from app.headline import precomputed
from wandlib.systems.base import Attention, Step, Trace


@dataclass(frozen=True)
class ExampleSide:
    """What the curves draw of a side that was computed before."""

    key: str
    label: str
    attention: Attention
    trace: Trace
    one_cache: bool = False
    rings: tuple[int, ...] = ()


def example_sides() -> list[ExampleSide]:
    """Return the sides of the stored result."""
    found = []
    for key, side in precomputed()["sides"].items():
        costs = zip(side["milliseconds"], side["cache_bytes"], strict=True)
        trace = Trace(
            side["attention"],
            side["window"],
            side["conditioning"],
            steps=[Step(index, milliseconds, held) for index, (milliseconds, held) in enumerate(costs)],
            parts=side["parts"],
        )
        found.append(ExampleSide(key, side["label"], side["attention"], trace, side["one_cache"]))
    return found
