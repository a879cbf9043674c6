"""The figures that notebooks, README and app share: what a step costs with full attention and with the window.

Full attention is orange and dashed, the window blue and solid: Okabe and Ito's colours, told apart by the colour-blind
and, by the dashes, on a grey print. Every curve carries its own label, every axis its unit (1 kB = 1000 bytes).

Figures are built through matplotlib's objects, never through ``pyplot``: no global state, so threads may draw at once.
Show one in a notebook by returning it from a cell; write one with ``figure.savefig("figure.svg")``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

FULL_COLOUR = "#D55E00"
WINDOW_COLOUR = "#0072B2"
INK = "#333333"

Values = Sequence[float] | NDArray[Any]


@runtime_checkable
class Costs(Protocol):
    """What every step cost; :class:`wandlib.systems.base.Trace` is one."""

    @property
    def milliseconds(self) -> Sequence[float]:
        """Wall time of every step."""

    @property
    def cache_bytes(self) -> Sequence[int]:
        """Bytes in the cache after every step."""


@dataclass(frozen=True)
class Curve:
    """One labelled line: its values, and how it is drawn."""

    label: str
    values: NDArray[np.float64]
    colour: str
    dashed: bool = False


def full_curve(values: Values) -> Curve:
    """The line of full attention, in its colour and dashes."""
    return Curve("full attention", np.asarray(values, dtype=np.float64), FULL_COLOUR, dashed=True)


def window_curve(values: Values, window: int | None = None) -> Curve:
    """The line of the window, in its colour; ``window`` in keys goes into the label."""
    label = "window" if window is None else f"window, W = {window}"
    return Curve(label, np.asarray(values, dtype=np.float64), WINDOW_COLOUR)


def running_median(values: Values, width: int = 9) -> NDArray[np.float64]:
    """Median of each value and the ``width - 1`` before it (fewer at the start): a step time without its outliers."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return array
    padded = np.concatenate([np.full(width - 1, np.nan), array])
    return np.asarray(np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1))


def byte_unit(largest: float) -> tuple[float, str]:
    """Divisor and name of the decimal unit in which ``largest`` bytes read well."""
    for divisor, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if largest >= divisor:
            return divisor, name
    return 1.0, "bytes"


def cache_per_step(full: Values, window: Values, *, window_size: int | None = None) -> Figure:
    """Cache bytes after every step: the line that grows and the line that does not.

    Parameters
    ----------
    full, window
        Bytes held by the cache after each step.
    window_size
        W in keys, for the label.
    """
    figure, (axes,) = _figure(columns=1)
    _draw_cache(axes, full_curve(full), window_curve(window, window_size))
    return figure


def milliseconds_per_step(full: Values, window: Values, *, window_size: int | None = None) -> Figure:
    """Wall time of every step (faint) and its running median (strong), in ms."""
    figure, (axes,) = _figure(columns=1)
    _draw_milliseconds(axes, full_curve(full), window_curve(window, window_size))
    return figure


def compare(full: Costs, window: Costs, *, window_size: int | None = None) -> Figure:
    """Cache bytes and ms of every step side by side, for two utterances, e.g. two ``speech.trace``."""
    figure, (left, right) = _figure(columns=2)
    _draw_cache(left, full_curve(full.cache_bytes), window_curve(window.cache_bytes, window_size))
    _draw_milliseconds(right, full_curve(full.milliseconds), window_curve(window.milliseconds, window_size))
    return figure


def two_caches(
    full: Values,
    window: Values,
    *,
    steps_per_second: float,
    window_size: int,
    title: str = "",
) -> Figure:
    """Cache bytes over seconds of speech, with the values at the end written out.

    Parameters
    ----------
    full, window
        Bytes held by the cache after each step; equally long.
    steps_per_second
        Acoustic tokens for a second of speech: turns steps into seconds.
    window_size
        W in keys, for the label.
    title
        What system this is; empty for none.
    """
    kept, ringed = full_curve(full), window_curve(window, window_size)
    if len(kept.values) != len(ringed.values):
        raise ValueError(f"two caches need equally many steps, got {len(kept.values)} and {len(ringed.values)}")
    figure, (axes,) = _figure(columns=1, width=7.2, height=3.6)
    divisor, unit = byte_unit(kept.values.max())
    seconds = (np.arange(len(kept.values)) + 1) / steps_per_second
    _draw(axes, [_divided(kept, divisor), _divided(ringed, divisor)], x=seconds, values=f"{{:.1f}} {unit}")
    axes.set_xlabel("speech generated (s)")
    axes.set_ylabel(f"key-value cache ({unit})")
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    return figure


class Picture(Figure):
    """A figure that a notebook shows without ``pyplot``."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def _figure(columns: int, width: float = 5.2, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    figure = Picture(figsize=(width * columns, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = [figure.add_subplot(1, columns, column + 1) for column in range(columns)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#999999")
        axes.tick_params(colors=INK, labelsize=9)
        axes.xaxis.label.set(color=INK, fontsize=10)
        axes.yaxis.label.set(color=INK, fontsize=10)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels


def _draw_cache(axes: Axes, full: Curve, window: Curve) -> None:
    divisor, unit = byte_unit(max(full.values.max(initial=0), window.values.max(initial=0)))
    _draw(axes, [_divided(full, divisor), _divided(window, divisor)])
    axes.set_xlabel("step (codes generated)")
    axes.set_ylabel(f"key-value cache ({unit})")


def _draw_milliseconds(axes: Axes, full: Curve, window: Curve) -> None:
    for curve in (full, window):
        axes.plot(np.arange(len(curve.values)) + 1, curve.values, color=curve.colour, alpha=0.25, linewidth=0.8)
    _draw(axes, [replace(curve, values=running_median(curve.values)) for curve in (full, window)])
    both = np.concatenate([full.values, window.values])
    if both.size:
        # One slow step (a page fault, another process) would flatten everything else.
        axes.set_ylim(0, 1.3 * float(np.quantile(both, 0.98)))
    axes.set_xlabel("step (codes generated)")
    axes.set_ylabel("time per step (ms)")


def _divided(curve: Curve, divisor: float) -> Curve:
    return replace(curve, values=curve.values / divisor)


def _draw(axes: Axes, curves: list[Curve], x: NDArray[np.float64] | None = None, values: str | None = None) -> None:
    """Plot the curves from zero and write each one's label, and its last value if asked, at its right end."""
    curves = [curve for curve in curves if curve.values.size]
    for curve in curves:
        across = np.arange(len(curve.values)) + 1 if x is None else x
        line_style = (0, (4, 1.5)) if curve.dashed else "solid"
        axes.plot(across, curve.values, color=curve.colour, linewidth=2, linestyle=line_style)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0, top=1.12 * max((curve.values.max() for curve in curves), default=1.0))
    for curve, above in zip(curves, _above(curves), strict=True):
        across = np.arange(len(curve.values)) + 1 if x is None else x
        text = curve.label if values is None else f"{curve.label}\n{values.format(curve.values[-1])}"
        axes.annotate(
            text,
            (float(across[-1]), float(curve.values[-1])),
            xytext=(6, 7 * above),
            textcoords="offset points",
            color=curve.colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )


def _above(curves: list[Curve]) -> list[int]:
    """Nudge labels apart, up (1) and down (-1), where two curves end close to each other; 0 where they do not."""
    if len(curves) < 2:
        return [0] * len(curves)
    first, second = curves[0].values[-1], curves[1].values[-1]
    scale = max(curve.values.max() for curve in curves)
    if abs(first - second) > 0.12 * scale:
        return [0, 0]
    return [1, -1] if first >= second else [-1, 1]
