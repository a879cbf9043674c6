"""The figures that notebooks, README and app share: what a step costs, and what a window covers.

The style is that of :mod:`wandlib.plots.charts`, whose charts can be had from here as well. 1 kB is 1000 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wandlib.plots.charts import (
    FULL_COLOUR,
    FURTHER_COLOURS,
    HIDDEN_COLOUR,
    INK,
    PROMPT_COLOUR,
    WINDOW_COLOUR,
    Bars,
    Curve,
    Picture,
    Values,
    bars,
    curve,
    draw,
    full_curve,
    lines,
    multiples,
    panels,
    window_curve,
)
from wandlib.profiling.attention_mass import AttentionMass, suggest_window

if TYPE_CHECKING:
    from wandlib.evaluation.error_rates import Interval

__all__ = [
    "FULL_COLOUR",
    "FURTHER_COLOURS",
    "HIDDEN_COLOUR",
    "INK",
    "PROMPT_COLOUR",
    "WINDOW_COLOUR",
    "Bars",
    "Costs",
    "Curve",
    "Picture",
    "bars",
    "byte_unit",
    "cache_per_step",
    "compare",
    "coverage",
    "curve",
    "full_curve",
    "intervals",
    "lines",
    "milliseconds_per_step",
    "multiples",
    "panels",
    "running_median",
    "two_caches",
    "window_curve",
]


@runtime_checkable
class Costs(Protocol):
    """What every step cost; :class:`wandlib.systems.base.Trace` is one."""

    @property
    def milliseconds(self) -> Sequence[float]:
        """Wall time of every step."""

    @property
    def cache_bytes(self) -> Sequence[int]:
        """Bytes in the cache after every step."""


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
    figure, (axes,) = panels(columns=1)
    _draw_cache(axes, full_curve(full), window_curve(window, window_size))
    return figure


def milliseconds_per_step(full: Values, window: Values, *, window_size: int | None = None) -> Figure:
    """Wall time of every step (faint) and its running median (strong), in ms."""
    figure, (axes,) = panels(columns=1)
    _draw_milliseconds(axes, full_curve(full), window_curve(window, window_size))
    return figure


def compare(full: Costs, window: Costs, *, window_size: int | None = None) -> Figure:
    """Cache bytes and ms of every step side by side, for two utterances, e.g. two ``speech.trace``."""
    figure, (left, right) = panels(columns=2)
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
    figure, (axes,) = panels(columns=1, width=7.2, height=3.6)
    divisor, unit = byte_unit(kept.values.max())
    seconds = (np.arange(len(kept.values)) + 1) / steps_per_second
    draw(axes, [_divided(kept, divisor), _divided(ringed, divisor)], x=seconds, values=f"{{:.1f}} {unit}")
    axes.set_xlabel("speech generated (s)")
    axes.set_ylabel(f"key-value cache ({unit})")
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    return figure


def coverage(mass: AttentionMass, aim: float = 0.9) -> Picture:
    """Attention that a window of W keeps, in %, over W: each layer (faint), and their mean (strong).

    Parameters
    ----------
    mass
        From :func:`wandlib.profiling.attention_mass.attention_mass`.
    aim
        A share of the attention; the smallest window that keeps it is marked.
    """
    percent = 100 * (mass.prefix[..., None] + mass.by_distance.cumsum(-1)).mean(1).numpy()  # [layers, windows]
    windows = np.arange(percent.shape[1]) + 1
    figure, (axes,) = panels(width=6.4, height=3.4)
    for layer in percent:
        axes.plot(windows, layer, color=WINDOW_COLOUR, alpha=0.25, linewidth=0.8)
    axes.plot(windows, percent.mean(0), color=WINDOW_COLOUR, linewidth=2)
    enough = suggest_window(mass, aim).window
    axes.plot([enough, enough, 0], [0, 100 * aim, 100 * aim], color=FULL_COLOUR, linewidth=1, linestyle="dotted")
    axes.annotate(f"{aim:.0%} from W = {enough}", (enough, 3), xytext=(6, 0), textcoords="offset points", fontsize=9)
    axes.set_xlim(0, windows[-1])
    axes.set_ylim(0, 104)
    axes.set_xlabel("window W (generated keys)")
    axes.set_ylabel("attention that it keeps (%)")
    return figure


def intervals(
    groups: Mapping[str, Mapping[str, Interval]], *, colours: Mapping[str, str], number: str = "{:.2f}"
) -> Picture:
    """Values with their intervals, a row for each name, a panel for each quantity; a line stands at 0.

    Parameters
    ----------
    groups
        By the label of the panel's axis, with the unit: intervals by name. Without bounds only the value is drawn.
    colours
        By name.
    number
        Format of the values.
    """
    rows = max(len(group) for group in groups.values())
    figure, every = panels(columns=len(groups), width=4.8, height=1.0 + 0.42 * rows)
    for axes, (label, group) in zip(every, groups.items(), strict=True):
        for row, (name, interval) in enumerate(group.items()):
            if not math.isnan(interval.low):
                axes.plot([interval.low, interval.high], [row, row], color=colours[name], linewidth=2)
            axes.plot([interval.value], [row], "o", color=colours[name], markersize=7)
            axes.annotate(
                number.format(interval.value),
                (interval.value, row),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                color=INK,
                fontsize=9,
            )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(group)), labels=list(group))
        axes.set_ylim(len(group) - 0.5, -0.7)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
    return figure


def _draw_cache(axes: Axes, full: Curve, window: Curve) -> None:
    divisor, unit = byte_unit(max(full.values.max(initial=0), window.values.max(initial=0)))
    draw(axes, [_divided(full, divisor), _divided(window, divisor)])
    axes.set_xlabel("step (codes generated)")
    axes.set_ylabel(f"key-value cache ({unit})")


def _draw_milliseconds(axes: Axes, full: Curve, window: Curve) -> None:
    for line in (full, window):
        axes.plot(np.arange(len(line.values)) + 1, line.values, color=line.colour, alpha=0.25, linewidth=0.8)
    draw(axes, [replace(line, values=running_median(line.values)) for line in (full, window)])
    both = np.concatenate([full.values, window.values])
    if both.size:
        # One slow step (a page fault, another process) would flatten everything else.
        axes.set_ylim(0, 1.3 * float(np.quantile(both, 0.98)))
    axes.set_xlabel("step (codes generated)")
    axes.set_ylabel("time per step (ms)")


def _divided(curve: Curve, divisor: float) -> Curve:
    return replace(curve, values=curve.values / divisor)
