"""Live curves as small SVG pictures.

A picture takes well under a millisecond to write. The figures of :mod:`wandlib.plots.costs` take a hundred, during
which the generating thread would wait for the interpreter: the drawing would show up as spikes in the times it draws.
Colors and dashes are those of :mod:`wandlib.plots`; text takes the page's color, light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wandlib.plots import FULL_COLOR, FURTHER_COLORS, WINDOW_COLOR, Curve, byte_unit
from wandlib.systems.base import Attention
from wandlib.systems.speech import Trace

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 12, 46
FONT = 16
"""In units of the picture: 12 px where it is 350 px wide, as on a phone."""
POINTS = 240
"""Most points in a curve, whatever the number of steps."""
MEDIAN_OF = 9
PARTS_SHOWN = 30
"""Most borders between parts that are drawn: more would hide the curves."""

Values = NDArray[np.float64]


class Traced(Protocol):
    """What is drawn: one side of a run, or of a stored result."""

    @property
    def key(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def attention(self) -> Attention: ...
    @property
    def trace(self) -> Trace: ...
    @property
    def one_cache(self) -> bool: ...
    @property
    def rings(self) -> Sequence[int]: ...


def colors(sides: Sequence[Traced]) -> dict[str, str]:
    """Return a color for each side, by its key: full attention's and the window's own first."""
    further = iter([*FURTHER_COLORS[::-1], "#009E73", "#7F7F7F"])
    found = {"full": FULL_COLOR, "window": WINDOW_COLOR, "untrained": FURTHER_COLORS[0]}
    return {side.key: found.get(side.key) or next(further) for side in sides}


def cache_curves(sides: Sequence[Traced]) -> str:
    """Draw the bytes in use in each side's cache over its steps, as SVG."""
    used = {side.key: bytes_in_use(side) for side in sides}
    largest = max((float(values.max()) for values in used.values() if values.size), default=1.0)
    divisor, unit = byte_unit(largest)
    shades = colors(sides)
    curves = [
        Curve(side.label, _picked(used[side.key]) / divisor, shades[side.key], side.attention == "full")
        for side in sides
    ]
    return _draw(curves, _counts(sides), "Cache memory in use", unit, 1.12 * largest / divisor, _borders(sides))


def milliseconds_curves(sides: Sequence[Traced]) -> str:
    """Draw the running median of the milliseconds per step, as SVG."""
    shades = colors(sides)
    curves = [
        Curve(
            side.label,
            _medians([s.milliseconds for s in list(side.trace.steps)]),
            shades[side.key],
            side.attention == "full",
        )
        for side in sides
    ]
    values = np.concatenate([curve.values for curve in curves] or [np.zeros(0)])
    # The first steps warm up and may be slow: they must not flatten the rest of the curve.
    top = 1.5 * float(np.quantile(values, 0.95)) if values.size else 1.0
    return _draw(curves, _counts(sides), f"Time a step, median of {MEDIAN_OF} or more", "ms", top, [])


def bytes_in_use(side: Traced) -> Values:
    """Return the bytes of keys and values that a step could see, [steps].

    A window's ring is as large from its first step as at its end; until it is full, a part of it is empty. With C
    tokens of conditioning and N bytes in C + R slots, step i of a part uses (C + min(i + 1, R)) N / (C + R), where the
    ring's R slots are the window, or as many as the part can need. Parts in ``one_cache`` go on in its ring.
    """
    trace = side.trace
    held = np.asarray([step.cache_bytes for step in list(trace.steps)], dtype=np.float64)
    if trace.window is None or not held.size or not trace.parts:
        return held
    rings = list(side.rings) or [trace.window] * len(trace.parts)
    first, slots = held[: trace.parts[0]][: rings[0]], trace.conditioning + rings[0]
    if (first != first[0]).any() or first[0] % slots:
        return held
    token = first[0] / slots
    borders: list[int] = [] if side.one_cache else np.cumsum(trace.parts[:-1]).tolist()
    for part, ring in zip(np.split(held, borders), rings, strict=False):  # views
        free = np.arange(ring - 1, 0, -1)[: part.size]
        part[: free.size] -= free * token
    return held


def _picked(values: Values) -> Values:
    """Thin a curve to ``POINTS`` values; the last one stays."""
    if values.size <= POINTS:
        return values
    return values[np.linspace(0, values.size - 1, POINTS).round().astype(int)]


def _medians(values: Sequence[float]) -> Values:
    """Return at most ``POINTS`` medians, each of the nine or more values before its place."""
    array = np.asarray(values, dtype=np.float64)
    ends = np.linspace(1, array.size, min(array.size, POINTS)).round().astype(int)
    width = max(MEDIAN_OF, array.size // POINTS)
    return np.array([np.median(array[max(0, end - width) : end]) for end in ends])


def _counts(sides: Sequence[Traced]) -> list[int]:
    return [len(side.trace.steps) for side in sides]


def _borders(sides: Sequence[Traced]) -> list[int]:
    """Return the steps at which full attention's cache was begun anew, where there are few."""
    for side in sides:
        if side.attention == "full":
            held = np.asarray([step.cache_bytes for step in list(side.trace.steps)])
            found = (np.flatnonzero(np.diff(held) < 0) + 1).tolist() if held.size else []
            return found if len(found) <= PARTS_SHOWN else []
    return []


def _draw(curves: list[Curve], counts: list[int], title: str, unit: str, top: float, borders: Sequence[int]) -> str:
    steps = max([40, *counts])
    top = top if top > 0 else 1.0
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} ({unit})" class="curves" '
        f'xmlns="http://www.w3.org/2000/svg" fill="currentColor" font-size="{FONT}">'
    ]
    for value in _ticks(top):
        y = _y(value, top)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".18"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{value:g}</text>')
    for step in _ticks(steps):
        parts.append(f'<text x="{_x(step, steps):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{step:g}</text>')
    for step in borders:
        x = _x(step, steps)
        parts.append(
            f'<path class="part" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="currentColor" stroke-opacity=".45" '
            'stroke-dasharray="2 4"/>'
        )
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 5}" text-anchor="middle">step</text>')
    center = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text transform="translate(15 {center:.0f}) rotate(-90)" text-anchor="middle">{unit}</text>')
    # The first side is drawn last, over the others.
    parts += [_line(*drawn, steps, top) for drawn in list(zip(curves, counts, strict=True))[::-1] if drawn[1]]
    legend = [_swatch(curve) for curve in curves]
    return (
        f"<figure><figcaption><b>{escape(title)}</b><span class='legend'>{''.join(legend)}</span></figcaption>"
        f"{''.join(parts)}</svg></figure>"
    )


def _swatch(curve: Curve) -> str:
    """One entry of the legend, in the page's ink: a colored label would be hard to read."""
    dashes = ' stroke-dasharray="5 3"' if curve.dashed else ""
    return (
        f'<span><svg width="26" height="10" aria-hidden="true"><path d="M1 5H25" stroke="{curve.color}" '
        f'stroke-width="3"{dashes}/></svg> {escape(curve.label)}</span>'
    )


def _line(curve: Curve, count: int, steps: int, top: float) -> str:
    at = np.linspace(1, count, len(curve.values))
    points = " ".join(f"{_x(x, steps):.1f},{_y(min(y, top), top):.1f}" for x, y in zip(at, curve.values, strict=True))
    dashes = ' stroke-dasharray="7 3"' if curve.dashed else ""
    return f'<polyline points="{points}" fill="none" stroke="{curve.color}" stroke-width="3"{dashes}/>'


def _x(step: float, steps: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / steps


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _ticks(top: float) -> Values:
    """Choose three to seven round numbers from 0 to ``top``."""
    power = 10.0 ** np.floor(np.log10(top))
    spacing = next(power * part for part in (0.2, 0.5, 1, 2) if top / (power * part) < 6)
    return np.arange(0, top * 1.0001, spacing)
