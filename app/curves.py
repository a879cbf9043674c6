"""Live curves as small SVG pictures.

A picture takes well under a millisecond to write. The figures of :mod:`wandlib.plots.costs` take a hundred, during
which the generating thread would wait for the interpreter: the drawing would show up as spikes in the times it draws.
Colors, dashes and labels are those of :mod:`wandlib.plots.costs`; text takes the page's color, light or dark.
"""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from wandlib.plots import Curve, byte_unit, full_curve, running_median, window_curve
from wandlib.systems.base import Step

WIDTH, HEIGHT = 480, 230
LEFT, RIGHT, TOP, BOTTOM = 54, 124, 14, 40
POINTS = 240
"""Most points in a curve, whatever the number of steps."""


def cache_curves(full: list[Step], window: list[Step], window_size: int) -> str:
    """Draw cache bytes over steps, as SVG."""
    largest = max((step.cache_bytes for step in full + window), default=1)
    divisor, unit = byte_unit(largest)
    curves = [
        full_curve([step.cache_bytes / divisor for step in full]),
        window_curve([step.cache_bytes / divisor for step in window], window_size),
    ]
    return _draw(curves, title="Key-value cache", unit=unit, top=1.12 * largest / divisor)


def milliseconds_curves(full: list[Step], window: list[Step], window_size: int) -> str:
    """Draw the running median of the milliseconds per step, as SVG."""
    curves = [
        full_curve(running_median([step.milliseconds for step in full])),
        window_curve(running_median([step.milliseconds for step in window]), window_size),
    ]
    values = np.concatenate([curve.values for curve in curves])
    # The first steps warm up and may be slow: they must not flatten the rest of the curve.
    top = 1.5 * float(np.quantile(values, 0.95)) if values.size else 1.0
    return _draw(curves, title="Time per step, median of 9", unit="ms", top=top)


def _draw(curves: list[Curve], title: str, unit: str, top: float) -> str:
    steps = max(40, *(len(curve.values) for curve in curves))
    top = top if top > 0 else 1.0
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} ({unit})" class="curves" '
        'xmlns="http://www.w3.org/2000/svg" fill="currentColor" font-size="12">'
    ]
    drawn = [curve for curve in curves if curve.values.size]
    for value in _ticks(top):
        y = _y(value, top)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".15"/>')
        if drawn:
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for step in _ticks(steps):
        x = _x(step, steps)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{step:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">step</text>')
    center = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text transform="translate(14 {center:.0f}) rotate(-90)" text-anchor="middle">{unit if drawn else ""}</text>'
    )
    for curve, label_y in zip(drawn, _label_heights(drawn, top), strict=True):
        parts.append(_line(curve, label_y, steps, top))
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}</svg></figure>"


def _line(curve: Curve, label_y: float, steps: int, top: float) -> str:
    picked = np.unique(np.linspace(0, len(curve.values) - 1, POINTS).round().astype(int))
    points = " ".join(f"{_x(i + 1, steps):.1f},{_y(min(curve.values[i], top), top):.1f}" for i in picked)
    dashes = ' stroke-dasharray="7 3"' if curve.dashed else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="{curve.color}" stroke-width="2.5"{dashes}/>'
        f'<text x="{_x(len(curve.values), steps) + 6:.1f}" y="{label_y + 4:.1f}" fill="{curve.color}" '
        f'font-weight="600">{escape(curve.label)}</text>'
    )


def _label_heights(curves: list[Curve], top: float) -> list[float]:
    """Place the labels at the ends of their curves, but never on top of each other."""
    heights = [_y(min(float(curve.values[-1]), top), top) for curve in curves]
    if len(heights) == 2 and abs(heights[0] - heights[1]) < 16:
        middle, upper_first = sum(heights) / 2, heights[0] <= heights[1]
        heights = [middle - 8, middle + 8] if upper_first else [middle + 8, middle - 8]
    return heights


def _x(step: float, steps: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / steps


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _ticks(top: float) -> NDArray[np.float64]:
    """Choose three to seven round numbers from 0 to ``top``."""
    power = 10.0 ** np.floor(np.log10(top))
    spacing = next(power * part for part in (0.2, 0.5, 1, 2) if top / (power * part) < 6)
    return np.arange(0, top * 1.0001, spacing)
