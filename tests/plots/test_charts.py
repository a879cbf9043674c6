"""Bars and small multiples: what they show, to scale."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from wandlib import plots

FULL = plots.Bars("full attention", [10.0, 40.0], plots.FULL_COLOR, published=[11.0, 38.0])
WINDOW = plots.Bars("window", [5.0, 13.0], plots.WINDOW_COLOR, published=[5.5, 12.0])


def test_bars_have_their_values_side_by_side_from_zero() -> None:
    (axes,) = plots.bars(["one", "two"], [FULL, WINDOW], y_label="cache (MB)").axes
    heights = [patch.get_height() for patch in axes.patches]
    assert heights == [10.0, 40.0, 5.0, 13.0]
    edges = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches)
    assert all(right <= left for (_, right), (left, _) in pairwise(edges)), "bars overlap"
    assert [text.get_text() for text in axes.texts] == ["10.0", "40.0", "5.0", "13.0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["one", "two"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylabel() == "cache (MB)"


def test_bars_mark_what_was_published_once_in_the_legend() -> None:
    (axes,) = plots.bars(["one", "two"], [FULL, WINDOW], y_label="cache (MB)").axes
    np.testing.assert_allclose([line.get_ydata() for line in axes.lines], [[11, 38], [5.5, 12]])
    legend = axes.get_legend()
    assert legend is not None
    assert sorted(text.get_text() for text in legend.get_texts()) == ["full attention", "published", "window"]


def test_a_whisker_fits_into_the_picture() -> None:
    wide = plots.Bars("", [0.2, 0.4], plots.WINDOW_COLOR, spread=[(0.1, 0.3), (0.2, 0.9)])
    (axes,) = plots.bars(["full", "W = 8"], [wide], y_label="WER", number="{:.2f}").axes
    (whiskers,) = axes.collections
    ends = [path.vertices[:, 1].tolist() for path in whiskers.get_paths()]
    assert ends == [[0.1, 0.3], [0.2, 0.9]]
    assert axes.get_ylim()[1] > 0.9
    assert axes.get_legend() is None


def test_multiples_share_one_scale() -> None:
    small, large = [plots.full_curve([1, 2])], [plots.full_curve([10, 20]), plots.window_curve([10, 10], 32)]
    figure = plots.multiples({"one": small, "sixteen": large}, x=[5, 10], x_label="time (s)", y_label="cache (MB)")
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim()
    assert right.get_ylim()[1] >= 20
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "sixteen"]
    np.testing.assert_allclose(right.lines[1].get_ydata(), [10, 10])
    np.testing.assert_allclose(right.lines[1].get_xdata(), [5, 10])
    legend = left.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["full attention"]


def test_every_bar_needs_a_value() -> None:
    with pytest.raises(ValueError, match="shape"):
        plots.bars(["one", "two", "three"], [FULL], y_label="cache (MB)")
