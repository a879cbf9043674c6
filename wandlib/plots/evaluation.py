"""Figures of an evaluation: intervals of error rates, and the alignment of two lists of words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from wandlib.plots.charts import FULL_COLOR, INK, WINDOW_COLOR, Picture, panels
from wandlib.plots.tokens import square

if TYPE_CHECKING:
    from wandlib.evaluation.error_rates import Interval


def intervals(
    groups: Mapping[str, Mapping[str, Interval]], *, colors: Mapping[str, str], number: str = "{:.2f}"
) -> Picture:
    """Draw values with their intervals, a row for each name, a panel for each quantity, with a line at 0.

    Parameters
    ----------
    groups
        Intervals by name, by the label of the panel's axis with the unit. Without bounds only the value is drawn.
    colors
        Colors by name.
    number
        Format of the values.
    """
    outlined = [withStroke(linewidth=3, foreground="white")]  # to be read where a value stands on a line
    rows = max(len(group) for group in groups.values())
    figure, every = panels(columns=len(groups), width=4.8, height=1.0 + 0.42 * rows)
    for axes, (label, group) in zip(every, groups.items(), strict=True):
        for row, (name, interval) in enumerate(group.items()):
            if not math.isnan(interval.low):
                axes.plot([interval.low, interval.high], [row, row], color=colors[name], linewidth=2)
            axes.plot([interval.value], [row], "o", color=colors[name], markersize=7)
            axes.annotate(
                number.format(interval.value),
                (interval.value, row),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                color=INK,
                fontsize=9,
                path_effects=outlined,
            )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(group)), labels=list(group))
        axes.set_ylim(len(group) - 0.5, -0.7)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
    return figure


def alignment(
    distances: NDArray[np.int64], path: Sequence[tuple[int, int]], reference: Sequence[str], heard: Sequence[str]
) -> Picture:
    """Draw the table of an edit distance between two lists of words, and the cheapest path through it.

    Parameters
    ----------
    distances
        Errors between the first r words of the reference and the first h of the transcript, [r + 1, h + 1].
    path
        Cells of the path, (row, column); those in which an error is counted are orange, the others blue.
    reference, heard
        Words of the reference, down the side, and of the transcript, along the top.
    """
    figure, (axes,) = panels(width=1.6 + 0.62 * len(heard), height=1.0 + 0.3 * len(reference))
    for row, column in np.ndindex(distances.shape):
        square(axes, column, row, str(distances[row, column]), "white")
    before = 0
    for row, column in path:
        errors = int(distances[row, column])
        square(axes, column, row, str(errors), FULL_COLOR if errors > before else WINDOW_COLOR)
        before = errors
    axes.set_xlim(0, len(heard) + 1)
    axes.set_ylim(len(reference) + 1, 0)
    axes.set_xticks(np.arange(len(heard) + 1) + 0.5, labels=["", *heard])
    axes.set_yticks(np.arange(len(reference) + 1) + 0.5, labels=["", *reference])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("heard (words)")
    axes.set_ylabel("reference (words)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    return figure
