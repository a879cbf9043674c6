"""Drawings of the method, step by step: who teaches whom, how the window closes, how text and speech interleave."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import FancyBboxPatch

from wandlib.plots.charts import (
    FULL_COLOR,
    FURTHER_COLORS,
    HIDDEN_COLOR,
    INK,
    PROMPT_COLOR,
    WINDOW_COLOR,
    Picture,
    panels,
)
from wandlib.plots.tokens import square


def teacher_and_student() -> Picture:
    """Draw one training step: one batch, two models that see different keys, and the two terms of the loss."""
    figure, (axes,) = panels(width=9, height=3.8)
    box(axes, 0.2, 1.6, 1.8, 1.0, "batch\nprompt and codes", PROMPT_COLOR)
    box(axes, 3.2, 2.8, 2.4, 1.0, "teacher, frozen\nsees every key", FULL_COLOR)
    box(axes, 3.2, 0.4, 2.4, 1.0, "student, trained\nsees prompt + last W", WINDOW_COLOR)
    box(axes, 7.0, 2.8, 2.4, 1.0, "divergence\nteacher's p, student's q", INK)
    box(axes, 7.0, 0.4, 2.4, 1.0, "cross-entropy\nthe spoken code", INK)
    box(axes, 10.6, 1.6, 1.4, 1.0, "loss", INK)
    for start, end in (
        ((2.0, 2.2), (3.2, 3.3)),
        ((2.0, 2.0), (3.2, 0.9)),
        ((5.6, 3.3), (7.0, 3.3)),
        ((5.6, 1.1), (7.0, 2.9)),
        ((5.6, 0.9), (7.0, 0.9)),
        ((9.4, 3.3), (10.6, 2.3)),
        ((9.4, 0.9), (10.6, 1.9)),
    ):
        arrow(axes, start, end, INK)
    arrow(axes, (11.3, 1.6), (5.0, 0.4), FULL_COLOR, bend=-0.45)
    axes.annotate("gradient: only the student learns", (7.6, -1.0), ha="center", color=FULL_COLOR, fontsize=9)
    _empty(axes, (0, 12.2), (-1.3, 4.1))
    return figure


def curriculum(window_start: int = 12, window: int = 3, codes: int = 14, moments: int = 4) -> Picture:
    """Draw what the newest code sees at some moments of a curriculum: its window narrows, and what is outside fades.

    Parameters
    ----------
    window_start, window
        First and last window, in codes.
    codes
        Codes that have been generated.
    moments
        Rows of the drawing, from the beginning to the end of training.
    """
    figure, (axes,) = panels(width=9, height=0.75 * moments)
    for row in range(moments):
        alpha = (1 - math.cos(math.pi * row / (moments - 1))) / 2
        width = round(window_start - alpha * (window_start - window))
        kept = math.exp(-(0.1 ** (1 - alpha)) * 10**alpha)
        for place in range(3):
            square(axes, place, -row, "c", PROMPT_COLOR)
        for place in range(codes):
            outside = codes - place > width
            square(axes, 3 + place, -row, "", _mixed(kept) if outside else WINDOW_COLOR, place == codes - 1)
        says = f"W = {width}, a hidden key keeps {kept:.0%} of its weight"
        axes.annotate(says, (codes + 3.4, 0.5 - row), va="center", color=INK, fontsize=9)
        when = f"{100 * row / (moments - 1):.0f} % of training"
        axes.annotate(when, (-0.3, 0.5 - row), ha="right", va="center", color=INK, fontsize=9)
    _empty(axes, (-4.4, codes + 13.5), (1 - moments - 0.2, 1.2))
    return figure


def streams(text: int = 3, codes: int = 6, blocks: int = 3, window: int = 4) -> Picture:
    """Draw text that arrives between the codes: it stays visible, and it takes no place in the window.

    Parameters
    ----------
    text, codes
        Tokens of text, and codes, in each block.
    blocks
        Number of blocks.
    window
        Codes that the newest one sees, its own key included.
    """
    figure, (axes,) = panels(width=9, height=1.5)
    square(axes, 0, 0, "v", PROMPT_COLOR)
    place, total = 1, blocks * codes
    for block in range(blocks):
        for _ in range(text):
            square(axes, place, 0, "t", FURTHER_COLORS[1])
            place += 1
        for number in range(block * codes, (block + 1) * codes):
            inside = number >= total - window
            square(axes, place, 0, str(number), WINDOW_COLOR if inside else HIDDEN_COLOR, number == total - 1)
            place += 1
    axes.annotate("v: voice, t: text as it arrives", (0, 1.15), color=INK, fontsize=9)
    axes.annotate(f"the last {window} codes", (place - window / 2, -0.15), ha="center", va="top", color=INK, fontsize=9)
    _empty(axes, (-0.2, place + 0.2), (-0.7, 1.7))
    return figure


def exposure_bias() -> Picture:
    """Draw exposure bias: in training each step starts from what was said, in speech from what the model said."""
    figure, (axes,) = panels(width=9, height=3.4)
    for step in range(5):
        left = 2.2 * step
        box(axes, left, 2.4, 1.2, 0.7, f"code {step}", FULL_COLOR)
        box(axes, left, 0, 1.2, 0.7, f"code {step}", WINDOW_COLOR if step else FULL_COLOR)
        if step:
            box(axes, left, 3.6, 1.2, 0.7, f"student's {step}", WINDOW_COLOR)
            arrow(axes, (left - 1.0, 2.75), (left, 2.75), FULL_COLOR)
            arrow(axes, (left - 1.0, 3.0), (left, 3.9), WINDOW_COLOR)
            arrow(axes, (left - 1.0, 0.35), (left, 0.35), WINDOW_COLOR)
    for height, place, text in (
        (4.6, 0, "training: the past is the teacher's"),
        (1.2, 0, "speech: the past is the student's own"),
        (4.6, 4.4, "a slip here changes no later step"),
        (-0.5, 2.2, "a slip here is the past of all that follows"),
    ):
        axes.annotate(text, (place, height), color=INK, fontsize=10)
    _empty(axes, (-0.2, 10.4), (-0.7, 5.0))
    return figure


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str) -> None:
    """Draw a labeled box in one color."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0.02", facecolor="white", edgecolor=color, linewidth=2
        )
    )
    axes.annotate(text, (x + width / 2, y + height / 2), ha="center", va="center", color=INK, fontsize=9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, bend: float = 0.0) -> None:
    """Draw an arrow; ``bend`` is the curvature of its arc."""
    style = {"arrowstyle": "->", "color": color, "linewidth": 1.4, "connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", end, start, arrowprops=style)


def _mixed(kept: float) -> str:
    """Return the color of a hidden key: blue as far as it keeps its weight, light gray for the rest."""
    parts = kept * np.asarray(to_rgb(WINDOW_COLOR)) + (1 - kept) * np.asarray(to_rgb(HIDDEN_COLOR))
    return to_hex(parts.tolist())


def _empty(axes: Axes, across: tuple[float, float], up: tuple[float, float]) -> None:
    axes.set_xlim(*across)
    axes.set_ylim(*up)
    axes.set_axis_off()
