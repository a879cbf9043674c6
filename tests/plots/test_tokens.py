"""The drawings: every square where it belongs, in the color of what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from wandlib import plots
from wandlib.attention.window import boolean_mask, tokens
from wandlib.plots import tokens as diagrams


def pixels(figure: Any) -> np.ndarray[Any, Any]:
    (image,) = figure.axes[0].images
    return np.asarray(image.get_array(), dtype=np.float64)


def test_mask_shows_the_rule() -> None:
    conditioning = torch.tensor([True, True, False, False, False])
    sequence = tokens(conditioning[None])
    figure = diagrams.mask(boolean_mask(sequence, sequence, 2)[0], conditioning, title="W = 2")
    assert figure is not None
    shown = pixels(figure)
    colors = {"c": to_rgb(plots.PROMPT_COLOR), "w": to_rgb(plots.WINDOW_COLOR), "-": to_rgb(plots.HIDDEN_COLOR)}
    rows = ["c    ", "cc   ", "ccw  ", "ccww ", "cc-ww"]
    expected = [[colors.get(kind, (1.0, 1.0, 1.0)) for kind in row] for row in rows]
    np.testing.assert_allclose(shown, expected)
    assert figure.axes[0].get_title(loc="left") == "W = 2"


def test_a_soft_mask_is_paler() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.25, 1.0]])
    figure = diagrams.mask(weights, torch.zeros(2, dtype=torch.bool))
    assert figure is not None
    blue, grey = (np.array(to_rgb(color)) for color in (plots.WINDOW_COLOR, plots.HIDDEN_COLOR))
    np.testing.assert_allclose(pixels(figure)[1, 0], 0.25 * blue + 0.75 * grey)


def test_mask_of_the_last_queries_is_labelled_by_position() -> None:
    figure = diagrams.mask(torch.ones(2, 6, dtype=torch.bool), torch.ones(6, dtype=torch.bool))
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["4", "5"]


def test_mask_in_given_axes_makes_no_figure() -> None:
    picture, (axes,) = plots.panels()
    assert diagrams.mask(torch.ones(2, 2, dtype=torch.bool), torch.ones(2, dtype=torch.bool), axes=axes) is None
    assert len(picture.axes[0].images) == 1


def test_layout_is_to_scale() -> None:
    figure = diagrams.layout({"BEGIN": 1, "voice": 75, "text": 25})
    mark, voice, text = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert voice.get_width() == 3 * text.get_width()
    assert voice.get_x() == mark.get_width()
    assert {note.get_text() for note in figure.axes[0].texts} == {"BEGIN", "voice\n75 tokens", "text\n25 tokens"}


def test_ring_shows_what_is_held() -> None:
    figure = diagrams.ring([3, 4, 2], prompt=2, step=4)
    names = [note.get_text() for note in figure.axes[0].texts]
    assert [names.count(name) for name in ("c0", "y0", "y1", "y2", "y3", "y4")] == [2, 1, 1, 2, 2, 2]
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    outlined = [patch for patch in patches if patch.get_edgecolor()[:3] == to_rgb(plots.FULL_COLOR)]
    assert sorted(patch.get_x() // 1 for patch in outlined) == [3, 6]  # slot 2 + 1, and position 2 + 4
    grey = [patch for patch in patches if patch.get_facecolor()[:3] == pytest.approx(to_rgb(plots.HIDDEN_COLOR))]
    assert len(grey) == 2


def test_slots_over_time() -> None:
    held = np.array([[-2, -2], [0, 1], [-1, 0]])
    shown = pixels(diagrams.slots_over_time(held, prompt=1))
    np.testing.assert_allclose(shown[0, 0], to_rgb(plots.PROMPT_COLOR))
    np.testing.assert_allclose(shown[1, 0], to_rgb(plots.WINDOW_COLOR))
    np.testing.assert_allclose(shown[2, 0], 1.0)
    assert (shown[1, 1] > shown[1, 0]).any()  # older is paler


def test_sound_has_one_time_axis() -> None:
    figure = diagrams.sound(np.zeros(1280, np.float32), 16_000, torch.zeros(8, 80), [3, 5])
    assert {axes.get_xlim() for axes in figure.axes} == {(0.0, 0.08)}
    assert [axes.get_ylabel() for axes in figure.axes] == ["amplitude", "mel band", "code"]
    assert figure.axes[2].get_xlabel() == "time (s)"


def test_attention_maps_mark_the_end_of_the_prompt() -> None:
    figure = diagrams.attention_maps({"a": torch.eye(4), "b": torch.eye(4)}, 2, {"text": 0, "codes": 2})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    for axes in figure.axes:
        assert set(np.asarray(axes.lines[0].get_xdata())) == {1.5}
        assert [label.get_text() for label in axes.get_xticklabels()] == ["text", "codes"]


def test_probabilities_in_percent_with_the_best_marked() -> None:
    figure = diagrams.probabilities(["x", "y"], [0.25, 0.75], x_label="probability (%)")
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert [bar.get_width() for bar in bars] == [25.0, 75.0]
    assert bars[1].get_facecolor()[:3] == pytest.approx(to_rgb(plots.FULL_COLOR))
    assert bars[0].get_facecolor()[:3] == pytest.approx(to_rgb(plots.WINDOW_COLOR))
