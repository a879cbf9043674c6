"""Figures of a training run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from wandlib.plots.charts import WINDOW_COLOR, Picture, panels

if TYPE_CHECKING:
    from wandlib.distillation.curriculum import WindowCurriculum


def curriculum(curriculum: WindowCurriculum) -> Picture:
    """Draw W and tau over the steps of a run; the hard mask begins where the line of tau ends.

    Raises
    ------
    ValueError
        If the curriculum has no ``total_steps``.
    """
    course = [curriculum.at(step) for step in range(curriculum.total_steps or 1)]
    figure, (left, right) = panels(columns=2)
    left.plot([now.window for now in course], color=WINDOW_COLOR, linewidth=2)
    left.set_ylim(bottom=0)
    left.set_ylabel("window W (keys)")
    right.plot([now.tau for now in course], color=WINDOW_COLOR, linewidth=2)
    right.set_yscale("log")
    right.set_ylim(curriculum.tau_start / 2, curriculum.tau_end * 2)
    right.set_ylabel("strength of the soft mask, tau")
    hard = next(step for step, now in enumerate(course) if now.tau == math.inf)
    for axes in (left, right):
        axes.axvspan(hard, len(course), color=WINDOW_COLOR, alpha=0.1, linewidth=0)
        axes.set_xlim(0, len(course))
        axes.set_xlabel("training step")
    right.annotate("hard", (hard, curriculum.tau_end), xytext=(4, 0), textcoords="offset points", fontsize=9)
    return figure
