"""Figures of costs: cache and time of each step, and the attention that a window covers. 1 kB is 1000 bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wandlib.plots.charts import (
    FULL_COLOR,
    INK,
    WINDOW_COLOR,
    Curve,
    Picture,
    Values,
    draw,
    full_curve,
    panels,
    window_curve,
)
from wandlib.profiling.attention_mass import AttentionMass, suggest_window
from wandlib.profiling.measure import Profile


@runtime_checkable
class Costs(Protocol):
    """Cost of every step: a :class:`wandlib.systems.base.Trace`, or a :class:`wandlib.profiling.measure.Profile`."""

    @property
    def milliseconds(self) -> Sequence[float]:
        """Wall time of every step."""

    @property
    def cache_bytes(self) -> Sequence[int]:
        """Bytes in the cache after every step."""


def running_median(values: Values, width: int = 9) -> NDArray[np.float64]:
    """Return the median of each value and the ``width - 1`` before it (fewer at the start), which drops outliers."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return array
    padded = np.concatenate([np.full(width - 1, np.nan), array])
    return np.asarray(np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1))


def byte_unit(largest: float) -> tuple[float, str]:
    """Return divisor and name of the decimal unit in which ``largest`` bytes are easy to read."""
    for divisor, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if largest >= divisor:
            return divisor, name
    return 1.0, "bytes"


def cache_per_step(full: Values, window: Values, *, window_size: int | None = None) -> Figure:
    """Draw the cache bytes after every step: a line that grows and a line that does not.

    Parameters
    ----------
    full, window
        Bytes of the cache after each step.
    window_size
        Window W in keys, for the label.
    """
    figure, (axes,) = panels(columns=1)
    _draw_cache(axes, full_curve(full), window_curve(window, window_size))
    return figure


def milliseconds_per_step(full: Values, window: Values, *, window_size: int | None = None) -> Figure:
    """Draw the wall time of every step (faint) and its running median (strong), in milliseconds."""
    figure, (axes,) = panels(columns=1)
    _draw_milliseconds(axes, full_curve(full), window_curve(window, window_size))
    return figure


def compare(full: Costs, window: Costs, *, window_size: int | None = None) -> Figure:
    """Draw cache bytes and milliseconds of every step of two utterances (two ``speech.trace``) or two profiles."""
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
    """Draw cache bytes over seconds of speech, with the final values written out.

    Parameters
    ----------
    full, window
        Bytes of the cache after each step; equally long.
    steps_per_second
        Acoustic tokens for a second of speech: turns steps into seconds.
    window_size
        Window W in keys, for the label.
    title
        Name of the system; empty for none.

    Raises
    ------
    ValueError
        If one cache has more steps than the other.
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
    """Draw the attention that a window of W keeps, in %, over W: each layer (faint), and their mean (strong).

    Parameters
    ----------
    mass
        Result of :func:`wandlib.profiling.attention_mass.attention_mass`.
    aim
        A share of the attention; the smallest window that keeps it is marked.
    """
    percent = 100 * (mass.prefix[..., None] + mass.by_distance.cumsum(-1)).mean(1).numpy()  # [layers, windows]
    windows = np.arange(percent.shape[1]) + 1
    figure, (axes,) = panels(width=6.4, height=3.4)
    for layer in percent:
        axes.plot(windows, layer, color=WINDOW_COLOR, alpha=0.25, linewidth=0.8)
    axes.plot(windows, percent.mean(0), color=WINDOW_COLOR, linewidth=2)
    enough = suggest_window(mass, aim)
    axes.plot([enough, enough, 0], [0, 100 * aim, 100 * aim], color=FULL_COLOR, linewidth=1, linestyle="dotted")
    axes.annotate(f"{aim:.0%} from W = {enough}", (enough, 3), xytext=(6, 0), textcoords="offset points", fontsize=9)
    axes.set_xlim(0, windows[-1])
    axes.set_ylim(0, 104)
    axes.set_xlabel("window W (generated keys)")
    axes.set_ylabel("attention that it keeps (%)")
    return figure


def profile(measured: Profile) -> Picture:
    """Draw milliseconds, cache and memory (MB) over the steps of one decode."""
    figure, every = panels(rows=3, width=7, height=2)
    rows = (
        ("step, ms", measured.milliseconds),
        ("cache, MB", [held / 1e6 for held in measured.cache_bytes]),
        (f"{measured.memory}, MB", [held / 1e6 for held in measured.memory_bytes]),
    )
    color = FULL_COLOR if measured.window is None else WINDOW_COLOR
    for axes, (label, values) in zip(every, rows, strict=True):
        axes.plot(range(1, len(values) + 1), values, color=color, linewidth=1)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    every[-1].set_xlabel("step (codes generated)")
    kind = "full attention" if measured.window is None else f"window {measured.window}"
    title = f"{kind}, {measured.conditioning} conditioning tokens, batch {measured.batch}, {measured.device}"
    every[0].set_title(title, loc="left", fontsize=10, color=INK)
    return figure


def _draw_cache(axes: Axes, full: Curve, window: Curve) -> None:
    divisor, unit = byte_unit(max(full.values.max(initial=0), window.values.max(initial=0)))
    draw(axes, [_divided(full, divisor), _divided(window, divisor)])
    axes.set_xlabel("step (codes generated)")
    axes.set_ylabel(f"key-value cache ({unit})")


def _draw_milliseconds(axes: Axes, full: Curve, window: Curve) -> None:
    for line in (full, window):
        axes.plot(np.arange(len(line.values)) + 1, line.values, color=line.color, alpha=0.25, linewidth=0.8)
    draw(axes, [replace(line, values=running_median(line.values)) for line in (full, window)])
    both = np.concatenate([full.values, window.values])
    if both.size:
        # One slow step (a page fault, another process) would flatten everything else.
        axes.set_ylim(0, 1.3 * float(np.quantile(both, 0.98)))
    axes.set_xlabel("step (codes generated)")
    axes.set_ylabel("time per step (ms)")


def _divided(curve: Curve, divisor: float) -> Curve:
    return replace(curve, values=curve.values / divisor)
