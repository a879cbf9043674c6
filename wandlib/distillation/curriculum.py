"""Curriculum of the window: from almost full attention to the hard window of inference, over a training run.

With the training progress ``t`` from 0 to 1 (WAND, arXiv 2604.08558, section 2),

    alpha(t) = (1 - cos(pi t)) / 2
    W(t)     = W_start - alpha(t) (W_start - W)
    tau(t)   = tau_start^(1 - alpha(t)) tau_end^alpha(t)

and the attention scores are ``A - tau(t) M``, with M = 1 on what only the window hides. Early in training, some
attention leaks past a wide window, and gradients flow; late, almost none does. ``t`` reaches 1 before the end: the last
``hard_fraction`` of the steps runs under the hard mask (tau = inf), so that training ends with exactly what inference
does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from wandlib.attention.conversion import set_window
from wandlib.attention.window import check_window

if TYPE_CHECKING:
    from wandlib.plots import Picture

SCHEDULES = ("cosine", "linear", "direct")


class CurriculumStep(NamedTuple):
    """Window and soft mask of one training step."""

    window: int
    """Window W(t), in generated keys."""
    tau: float
    """Strength of the soft mask; ``inf``: the hard window."""
    alpha: float
    """Progress of the curriculum, from 0 to 1."""


@dataclass(frozen=True)
class WindowCurriculum:
    """W and tau at every step of a training run.

    Parameters
    ----------
    window_start
        Window W at the first step, except with "direct". The paper uses 128.
    window
        Final window, which inference uses.
    tau_start, tau_end
        Strength of the soft mask at the first step and before the hard mask sets in. The paper gives no numbers; with
        these, a hidden key starts with e^-0.1 = 90 % of its weight and ends with e^-10, almost none.
    total_steps
        Optimizer steps of the run; None: :class:`CurriculumCallback` takes those of the run it is used in.
    hard_fraction
        Share of the steps, at the end, under the hard mask.
    schedule
        "cosine", the paper's; "linear": alpha = t; "direct": no curriculum, the hard window from the first step.

    Raises
    ------
    ValueError
        If a value is outside its range.
    """

    window_start: int = 128
    window: int = 32
    tau_start: float = 0.1
    tau_end: float = 10.0
    total_steps: int | None = None
    hard_fraction: float = 0.1
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        check_window(self.window)
        check_window(self.window_start)
        if self.schedule != "direct" and self.window_start < self.window:
            raise ValueError(
                f"the curriculum narrows the window, so window_start must be at least window = {self.window}; "
                f"got {self.window_start}"
            )
        if not 0 < self.tau_start <= self.tau_end < math.inf:
            raise ValueError(
                "tau rises in log scale, so 0 < tau_start <= tau_end < inf must hold (the hard mask comes on its own "
                f"in the end); got {self.tau_start} and {self.tau_end}"
            )
        if not 0 < self.hard_fraction <= 1:
            raise ValueError(f"hard_fraction is a share of the steps, above 0 and at most 1; got {self.hard_fraction}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(map(repr, SCHEDULES))}; got {self.schedule!r}")
        if self.total_steps is not None and self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {self.total_steps}")

    def at(self, step: int) -> CurriculumStep:
        """Return window and tau of an optimizer step, counted from 0; after the last one, the hard window.

        Raises
        ------
        ValueError
            If ``total_steps`` is not set, or ``step`` is negative.
        """
        if self.total_steps is None:
            raise ValueError("this curriculum has no length yet: pass total_steps, the optimizer steps of the run")
        if step < 0:
            raise ValueError(f"steps are counted from 0, got {step}")
        first_hard = min(self.total_steps - 1, round((1 - self.hard_fraction) * self.total_steps))
        if self.schedule == "direct" or step >= first_hard:
            return CurriculumStep(self.window, math.inf, 1.0)
        progress = step / first_hard
        alpha = progress if self.schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
        window = round(self.window_start - alpha * (self.window_start - self.window))
        return CurriculumStep(window, self.tau_start ** (1 - alpha) * self.tau_end**alpha, alpha)

    def plot(self) -> Picture:
        """Draw W and tau over the steps; the hard mask begins where the line of tau ends."""
        from wandlib import plots  # matplotlib only when something is drawn

        return plots.curriculum(self)


class CurriculumCallback(TrainerCallback):
    """Apply a curriculum to the converted model that a transformers Trainer trains, and log W and tau.

    The step is the Trainer's own, so a resumed run continues where it stopped. When training ends, early or not, the
    model has the final, hard window. Where an exception ends it, no callback is called: there
    :class:`~wandlib.distillation.trainer.WandTrainer` sets the window, and with another Trainer you have to.

    Parameters
    ----------
    curriculum
        The curriculum; without ``total_steps`` it spans the run.
    """

    def __init__(self, curriculum: WindowCurriculum) -> None:
        self.curriculum = self.course = curriculum
        self.now: CurriculumStep | None = None
        """Window and tau of the step that is running, or ran last."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the curriculum the length of the run."""
        if self.curriculum.total_steps is None:  # each time anew: auto_find_batch_size changes the number of steps
            self.course = replace(self.curriculum, total_steps=state.max_steps)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply the step's window to the model."""
        self.now = self.course.at(state.global_step)
        set_window(kwargs["model"], window=self.now.window, tau=self.now.tau)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add W and tau to the log of a training step, and to the history, which is written before this."""
        if "loss" in kwargs["logs"] and self.now is not None:
            for record in (kwargs["logs"], state.log_history[-1]):
                record.update(window=self.now.window, tau=self.now.tau)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model with the hard window of inference."""
        set_window(kwargs["model"], window=self.curriculum.window, tau=math.inf)
