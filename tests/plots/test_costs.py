"""The figures: what they show, to scale, with units; and that threads may draw at once."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure

from wandlib import plots
from wandlib.profiling.attention_mass import AttentionMass
from wandlib.systems.base import Step, Trace


def trace(steps: int, window: int | None = None) -> Trace:
    kept = [min(step + 1, window or steps) for step in range(steps)]
    costs = [Step(index, 4.0, 2_000_000 * (10 + count)) for index, count in enumerate(kept)]
    return Trace("window" if window else "full", window, 10, steps=costs)


def labels(figure: Figure, panel: int = 0) -> set[str]:
    return {text.get_text() for text in figure.axes[panel].texts}


def test_compare_shows_both_quantities_with_units() -> None:
    figure = plots.compare(trace(50), trace(40, window=8), window_size=8)
    cache, milliseconds = figure.axes
    assert cache.get_ylabel() == "key-value cache (MB)"
    assert milliseconds.get_ylabel() == "time per step (ms)"
    assert labels(figure, 0) == labels(figure, 1) == {"full attention", "window, W = 8"}
    full, window = cache.lines
    np.testing.assert_allclose(full.get_ydata(), [2.0 * (10 + step) for step in range(1, 51)])
    np.testing.assert_allclose(np.asarray(window.get_ydata())[8:], 36.0)
    assert full.get_linestyle() != window.get_linestyle()
    assert full.get_color() != window.get_color()


def test_axes_start_at_zero() -> None:
    for figure in (plots.cache_per_step([5, 6], [5, 5]), plots.milliseconds_per_step([3.0, 3.1], [3.0, 3.0])):
        assert figure.axes[0].get_ylim()[0] == 0
        assert figure.axes[0].get_xlim()[0] == 0


def test_two_caches_writes_the_values_at_the_end() -> None:
    figure = plots.two_caches(
        [1e6, 2e6, 3e6], [1e6, 1.5e6, 1.5e6], steps_per_second=25, window_size=2, title="a system"
    )
    assert labels(figure) == {"full attention\n3.0 MB", "window, W = 2\n1.5 MB"}
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [0.04, 0.08, 0.12])
    assert figure.axes[0].get_title(loc="left") == "a system"


def test_two_caches_of_unequal_length() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        plots.two_caches([1, 2], [1], steps_per_second=25, window_size=1)


def test_running_median_sees_only_the_past() -> None:
    values = [5.0, 1.0, 9.0, 1.0, 1.0]
    np.testing.assert_allclose(plots.running_median(values, width=3), [5.0, 3.0, 5.0, 1.0, 1.0])
    assert plots.running_median([]).shape == (0,)


@pytest.mark.parametrize(
    ("largest", "unit"),
    [(999, (1.0, "bytes")), (1000, (1e3, "kB")), (5e6, (1e6, "MB")), (2e9, (1e9, "GB"))],
)
def test_byte_unit(largest: float, unit: tuple[float, str]) -> None:
    assert plots.byte_unit(largest) == unit


def test_nothing_generated_yet() -> None:
    @dataclass
    class Nothing:
        milliseconds: tuple[float, ...] = ()
        cache_bytes: tuple[int, ...] = ()

    assert labels(plots.compare(Nothing(), Nothing())) == set()


def test_threads_draw_the_same_and_leave_no_global_figure() -> None:
    def draw(_: int) -> bytes:
        image = io.BytesIO()
        plots.compare(trace(50), trace(40, window=8)).savefig(image, format="png")
        return image.getvalue()

    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(draw, range(8)))
    assert len(set(images)) == 1
    assert _pylab_helpers.Gcf.figs == {}


def test_a_notebook_shows_the_figure() -> None:
    picture = plots.cache_per_step([1000, 2000], [1500, 1500])
    assert picture.png()[:8] == b"\x89PNG\r\n\x1a\n"


def test_lines_with_an_axis_of_their_own() -> None:
    one, other = plots.Curve("one", [1.0, 2.0]), plots.Curve("other", [1.0, 1.9], plots.FULL_COLOR, dashed=True)
    figure = plots.lines([one, other], x=[10, 20], x_label="time (s)", y_label="cache (MB)")
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [10, 20])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time (s)", "cache (MB)")
    assert labels(figure) == {"one", "other"}


@pytest.mark.parametrize("ends", [[3.0, 3.0], [3.0, 3.1, 2.9], [1.0, 5.0]])
def test_labels_stay_apart(ends: list[float]) -> None:
    figure = plots.lines([plots.Curve(str(i), [1.0, end]) for i, end in enumerate(ends)], x_label="x", y_label="y")
    scale = max(ends) / 150  # a panel is about 150 points high
    places = sorted(text.xyann[1] + end / scale for text, end in zip(figure.axes[0].texts, ends, strict=True))
    assert np.diff(places).min() >= 13.9


def test_labels_stay_off_the_axis() -> None:
    ends = [0.0, 0.0, 0.1]
    figure = plots.lines([plots.Curve(str(i), [3.0, end]) for i, end in enumerate(ends)], x_label="x", y_label="y")
    (axes,) = figure.axes
    assert axes.get_xlim() == (0, 2), "no line of the axis or the grid runs through a label"
    heights = sorted(text.xyann[1] + 150 * end / 3 for text, end in zip(axes.texts, ends, strict=True))
    assert heights[0] >= 0, "below are the numbers of the axis"
    assert np.diff(heights).min() >= 13.9


def test_coverage_marks_the_smallest_window_that_is_enough() -> None:
    by_distance = torch.tensor([[[0.2, 0.1, 0.1]], [[0.4, 0.3, 0.1]]])
    mass = AttentionMass(1 - by_distance.sum(-1), by_distance, windows=(1, 2))
    figure = plots.coverage(mass, aim=0.75)
    first, second, mean, mark = figure.axes[0].lines
    np.testing.assert_allclose(first.get_ydata(), [80, 90, 100], rtol=1e-5)
    np.testing.assert_allclose(second.get_ydata(), [60, 90, 100], rtol=1e-5)
    np.testing.assert_allclose(mean.get_ydata(), [70, 90, 100], rtol=1e-5)
    assert np.asarray(mark.get_xdata())[0] == 2
    assert labels(figure) == {"75% from W = 2"}


def test_panels_come_row_by_row() -> None:
    picture, every = plots.panels(columns=2, rows=3, width=2, height=1)
    assert len(every) == 6
    assert tuple(picture.get_size_inches()) == (4, 3)
