"""Figure of the README: what a step costs as the speech grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.caches import STOCK, WINDOW
from benchmarks.sweep import FLOOR
from wandlib.plots import FULL_COLOR, INK, WINDOW_COLOR, Curve, lines


def step_times(sweep: dict[str, Any]) -> Figure:
    """Draw the milliseconds of a step over seconds of generated speech: stock, window, and the floor."""
    seconds, taken = sweep["seconds"], sweep["milliseconds"]
    curves = [
        Curve(f"full attention, {STOCK}", taken[STOCK], FULL_COLOR, dashed=True),
        Curve(WINDOW, taken[WINDOW], WINDOW_COLOR),
        Curve("floor: bare kernels", [sweep[FLOOR]] * len(seconds), "#999999"),
    ]
    figure = lines(curves, x=seconds, x_label="speech generated (s)", y_label="time per step (ms)")
    figure.set_size_inches(7.2, 3.6)
    figure.axes[0].set_title(sweep["title"], loc="left", fontsize=10, color=INK)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write an SVG; the same picture is the same file."""
    with matplotlib.rc_context({"svg.hashsalt": "wandlib"}):
        figure.savefig(path, metadata={"Date": None})
