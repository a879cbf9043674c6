"""Drawings of the method: what is in them, and whose color it has."""

from __future__ import annotations

from collections import Counter

from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from wandlib.plots import FULL_COLOR, WINDOW_COLOR
from wandlib.tutorial import exposure_bias, streams


def edges(figure: Figure) -> Counter[str]:
    """Boxes by the color of their edge."""
    return Counter(to_hex(patch.get_edgecolor()) for axes in figure.axes for patch in axes.patches)


def test_exposure_bias_has_the_students_guesses_beside_the_past() -> None:
    figure = exposure_bias()
    colors = edges(figure)
    # Five codes that were said and the first of the speech; four guesses, and four codes of the student's own.
    assert colors == {to_hex(FULL_COLOR): 6, to_hex(WINDOW_COLOR): 8}
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert [word for word in words if word.startswith("student's")] == [f"student's {step}" for step in range(1, 5)]
    assert sum("the past of all that follows" in word for word in words) == 1


def test_streams_show_every_block_and_one_window() -> None:
    text = repr(streams(text=3, codes=6, blocks=3, window=4))
    assert "shapes: 1 green, 9 yellow, 14 light gray, 4 blue" in text
