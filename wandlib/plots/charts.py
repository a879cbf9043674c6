"""Charts of any quantity in one style: curves, bars, small multiples.

Full attention is orange and dashed, the window blue and solid, the prompt green: Okabe and Ito's colors, which
color-blind readers can distinguish; the dashes serve prints in gray. Every curve has its own label, every axis its
unit. The other modules of this package draw with what is defined here.

Figures are built from matplotlib's objects, never through ``pyplot``: there is no global state, so threads may draw
concurrently. Show a figure in a notebook by returning it from a cell; write it with ``figure.savefig("figure.svg")``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wandlib.plots.description import describe

FULL_COLOR = "#D55E00"
WINDOW_COLOR = "#0072B2"
PROMPT_COLOR = "#009E73"
HIDDEN_COLOR = "#dddddd"
"""Color of what no query sees any more."""
FURTHER_COLORS = ("#CC79A7", "#E69F00", "#56B4E9")
"""Colors of what is neither full attention, nor window, nor prompt."""
INK = "#333333"

Values = Sequence[float] | NDArray[Any]


@dataclass(frozen=True)
class Curve:
    """One labeled line."""

    label: str
    values: Any
    """Any sequence of numbers; kept as an array of float64."""
    color: str = INK
    dashed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.asarray(self.values, dtype=np.float64))


def full_curve(values: Values) -> Curve:
    """Return the curve of full attention, in its color and dashes."""
    return Curve("full attention", values, FULL_COLOR, dashed=True)


def window_curve(values: Values, window: int | None = None) -> Curve:
    """Return the curve of the window, in its color; ``window``, in keys, goes into the label."""
    label = "window" if window is None else f"window, W = {window}"
    return Curve(label, values, WINDOW_COLOR)


class Picture(Figure):
    """A figure that a notebook shows without ``pyplot``, with its description as text and as alternative text."""

    def png(self) -> bytes:
        """Draw at 100 pixels an inch."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    def __repr__(self) -> str:
        width, height = (round(100 * float(inches)) for inches in self.get_size_inches())
        return f"<Picture {width} x {height}\n{describe(self)}>"

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        return self.png(), {"alt": describe(self)}


def panels(columns: int = 1, rows: int = 1, width: float = 5.2, height: float = 3.0) -> tuple[Picture, list[Axes]]:
    """Return an empty picture in this style, and its axes, row by row.

    Parameters
    ----------
    width, height
        Size of each panel, in inches; a notebook shows 100 pixels for each.
    """
    figure = Picture(figsize=(width * columns, height * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    every = [figure.add_subplot(rows, columns, place + 1) for place in range(columns * rows)]
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#999999")
        axes.tick_params(colors=INK, labelsize=9)
        axes.xaxis.label.set(color=INK, fontsize=10)
        axes.yaxis.label.set(color=INK, fontsize=10)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, every


def lines(curves: Sequence[Curve], *, x: Values | None = None, x_label: str, y_label: str) -> Picture:
    """Draw curves, each labeled at its right end.

    Parameters
    ----------
    x
        Horizontal positions, shared by all curves; None: 1, 2, 3 ...
    x_label, y_label
        Labels of the axes, with the unit.
    """
    figure, (axes,) = panels()
    draw(axes, list(curves), x=None if x is None else np.asarray(x, dtype=np.float64))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure


def multiples(settings: Mapping[str, Sequence[Curve]], *, x: Values, x_label: str, y_label: str) -> Picture:
    """Draw curves under several settings, a panel for each; all panels have the same scale.

    Parameters
    ----------
    settings
        Curves by the title of their panel.
    x
        Horizontal positions, shared by all curves.
    x_label, y_label
        Labels of the axes, with the unit.
    """
    figure, every = panels(columns=len(settings), width=min(6.4, max(3.2, 10.4 / len(settings))), height=3.0)
    for axes, (title, curves) in zip(every, settings.items(), strict=True):
        for curve in curves:
            style = (0, (4, 1.5)) if curve.dashed else "solid"
            axes.plot(x, curve.values, color=curve.color, linewidth=2, linestyle=style, label=curve.label)
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel(x_label)
        axes.set_xlim(left=0)
    highest = 1.08 * max(curve.values.max(initial=0) for curves in settings.values() for curve in curves)
    for axes in every:
        axes.set_ylim(0, highest)
    every[0].set_ylabel(y_label)
    every[0].legend(frameon=False, fontsize=9)  # a label at every line would not fit between narrow panels
    return figure


@dataclass(frozen=True)
class Bars:
    """One bar for every name, and what is drawn with it."""

    label: str
    values: Values
    color: str | Sequence[str]
    """One color for all bars, or one for each."""
    published: Values | None = None
    """Values from another source: a diamond on every bar."""
    spread: Sequence[tuple[float, float]] | None = None
    """Lowest and highest plausible value of every bar: a whisker."""


def bars(names: Sequence[str], groups: Sequence[Bars], *, y_label: str, number: str = "{:.1f}") -> Picture:
    """Draw bars from zero, side by side for every name, each with its value above it.

    Parameters
    ----------
    names
        Names of the bars, along the bottom.
    groups
        One or more bars for every name.
    y_label
        Label of the axis, with the unit.
    number
        Format of the values.
    """
    figure, (axes,) = panels(width=max(5.2, 0.9 * len(names) * (1 + len(groups)) / 1.5), height=3.4)
    wide = 0.8 / len(groups)
    for index, group in enumerate(groups):
        centers = np.arange(len(names)) + wide * (index - (len(groups) - 1) / 2)
        tops, lift = np.asarray(group.values, dtype=np.float64), 3
        axes.bar(centers, tops, 0.92 * wide, color=group.color, label=group.label)
        if group.published is not None:
            label = "published" if index == 0 else None
            axes.plot(centers, group.published, "D", color="black", markerfacecolor="white", markersize=6, label=label)
            tops, lift = np.maximum(tops, group.published), 8
        if group.spread is not None:
            low, high = np.asarray(group.spread, dtype=np.float64).T
            axes.vlines(centers, low, high, color=INK, linewidth=1.5)
            tops = np.maximum(tops, high)
        for center, top, value in zip(centers, tops, group.values, strict=True):
            axes.annotate(
                number.format(value),
                (float(center), float(top)),
                xytext=(0, lift),
                textcoords="offset points",
                ha="center",
                color=INK,
                fontsize=9,
            )
    axes.set_xticks(np.arange(len(names)), labels=list(names))
    axes.margins(y=0.14)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(y_label)
    if len(groups) > 1:
        axes.legend(frameon=False, fontsize=9)
    return figure


def draw(axes: Axes, curves: list[Curve], x: NDArray[np.float64] | None = None, values: str | None = None) -> None:
    """Draw the curves from zero; at the end of each, write its label, and its last value in the format ``values``."""
    curves = [curve for curve in curves if curve.values.size]
    across = [np.arange(1, len(curve.values) + 1, dtype=np.float64) if x is None else x for curve in curves]
    for curve, places in zip(curves, across, strict=True):
        line_style = (0, (4, 1.5)) if curve.dashed else "solid"
        axes.plot(places, curve.values, color=curve.color, linewidth=2, linestyle=line_style, label=curve.label)
    axes.set_xlim(0, max((float(places.max()) for places in across), default=0) or 1)  # no axis runs through a label
    axes.set_ylim(bottom=0, top=1.12 * max((curve.values.max() for curve in curves), default=1.0))
    for curve, places, nudge in zip(curves, across, _nudges(curves), strict=True):
        text = curve.label if values is None else f"{curve.label}\n{values.format(curve.values[-1])}"
        axes.annotate(
            text,
            (float(places[-1]), float(curve.values[-1])),
            xytext=(6, nudge),
            textcoords="offset points",
            color=curve.color,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )


def _nudges(curves: list[Curve]) -> list[float]:
    """Return how far, in points, to move each label up or down so that no two of them overlap."""
    scale = max((curve.values.max() for curve in curves), default=1.0) or 1.0
    ends = [150 * float(curve.values[-1]) / scale for curve in curves]  # about 150 points high, a panel of 3 inches
    places = list(ends)
    upwards = sorted(range(len(ends)), key=lambda index: (ends[index], -index))
    for _ in range(50):
        for lower, upper in pairwise(upwards):
            overlap = 14 - (places[upper] - places[lower])
            if overlap > 0:
                places[lower] -= overlap / 2
                places[upper] += overlap / 2
        places = [max(place, 0.0) for place in places]  # the numbers of the axis are below
    return [place - end for place, end in zip(places, ends, strict=True)]
