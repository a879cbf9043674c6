"""The figure of the README: what a step costs as the speech grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.caches import STOCK, WINDOW
from benchmarks.sweep import FLOOR
from wandlib.plots.costs import FULL_COLOR, INK, WINDOW_COLOR


def step_times(sweep: dict[str, Any]) -> Figure:
    """Milliseconds of a step over seconds of speech generated: stock, window, and the floor."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    seconds = sweep["seconds"]
    lines = (
        (f"full attention, {STOCK}", sweep["ms"][STOCK], FULL_COLOR, "--", "o"),
        (WINDOW, sweep["ms"][WINDOW], WINDOW_COLOR, "-", "o"),
        ("floor: bare kernels", [sweep[FLOOR]] * len(seconds), "#999999", ":", ""),
    )
    for label, ms, color, style, marker in lines:
        axes.plot(seconds, ms, color=color, linestyle=style, marker=marker, label=label)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("speech generated (s)")
    axes.set_ylabel("time per step (ms)")
    axes.set_title(sweep["title"], loc="left", fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.legend(frameon=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write an SVG; the same picture is the same file."""
    with matplotlib.rc_context({"svg.hashsalt": "wandlib"}):
        figure.savefig(path, metadata={"Date": None})
