"""Figures of an evaluation: intervals, and the alignment of two lists of words."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.colors import to_hex

from wandlib import plots
from wandlib.evaluation.error_rates import Interval

COLORS = {"full": plots.FULL_COLOR, "window 16": plots.WINDOW_COLOR}


def test_intervals_reach_from_low_to_high_and_show_zero() -> None:
    rates = {"full": Interval(0.3, 0.2, 0.4), "window 16": Interval(0.5, 0.4, 0.9)}
    apart = {"window 16": Interval(0.2, 0.1, 0.3)}
    left, right = plots.intervals({"WER": rates, "WER - full": apart}, colors=COLORS).axes
    bars = [line for line in left.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2]
    assert [list(line.get_xdata()) for line in bars] == [[0.2, 0.4], [0.4, 0.9]]
    assert [line.get_color() for line in bars] == [plots.FULL_COLOR, plots.WINDOW_COLOR]
    assert [text.get_text() for text in left.texts] == ["0.30", "0.50"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["window 16"]
    for axes in (left, right):
        low, high = axes.get_xlim()
        assert low <= 0 < high
        bottom, top = axes.get_ylim()
        assert bottom > top, "the first row stands on top"
    assert (left.get_xlabel(), right.get_xlabel()) == ("WER", "WER - full")


def test_an_interval_without_bounds_is_a_dot() -> None:
    (axes,) = plots.intervals({"WER": {"full": Interval(0.3, math.nan, math.nan)}}, colors=COLORS).axes
    drawn = [line.get_xdata() for line in axes.lines]
    assert not any(np.isnan(np.asarray(values, dtype=float)).any() for values in drawn)


def test_an_alignment_colors_the_way_by_its_errors() -> None:
    distances = np.array([[0, 1], [1, 0], [2, 1]])  # "a b" heard as "a"
    (axes,) = plots.alignment(distances, [(0, 0), (1, 1), (2, 1)], ["a", "b"], ["a"]).axes
    last = {
        (int(patch.get_x()), int(patch.get_y())): to_hex(patch.get_facecolor(), keep_alpha=False).upper()
        for patch in axes.patches
    }
    on = {(0, 0): plots.WINDOW_COLOR, (1, 1): plots.WINDOW_COLOR, (1, 2): plots.FULL_COLOR}
    assert {place: color for place, color in last.items() if color != "#FFFFFF"} == on
    assert len(axes.texts) == 6 + 3
    assert [label.get_text() for label in axes.get_yticklabels()] == ["", "a", "b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["", "a"]
