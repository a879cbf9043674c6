"""The curriculum: its formulas, its ends, and the callback under a stock Trainer."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import LANGUAGE_MODELS
from transformers import Trainer, TrainingArguments

from wandlib.attention.conversion import convert, hook_of, load
from wandlib.distillation.collator import WandCollator
from wandlib.distillation.curriculum import CurriculumCallback, WindowCurriculum

QWEN2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "qwen2")


def test_begins_wide_and_soft_and_ends_at_the_hard_window() -> None:
    curriculum = WindowCurriculum(window_start=128, window=32, tau_start=0.1, tau_end=10.0, total_steps=100)
    assert curriculum.at(0) == (128, pytest.approx(0.1), 0.0)
    for last in (90, 99, 100, 10_000):  # hard_fraction is a tenth
        assert curriculum.at(last) == (32, math.inf, 1.0)


def test_half_way_is_the_mean_window_and_the_geometric_mean_of_tau() -> None:
    """Cosine and line meet there."""
    for schedule in ("cosine", "linear"):
        now = WindowCurriculum(128, 32, 0.1, 10.0, 100, hard_fraction=0.1, schedule=schedule).at(45)
        assert now == (80, pytest.approx(1.0), pytest.approx(0.5))


def test_a_quarter_of_the_way_tells_the_shapes_apart() -> None:
    alphas = {
        s: WindowCurriculum(total_steps=400, hard_fraction=0.5, schedule=s).at(50).alpha for s in ("cosine", "linear")
    }
    assert alphas == {"cosine": pytest.approx((1 - math.sqrt(0.5)) / 2), "linear": 0.25}


def test_direct_is_hard_from_the_first_step() -> None:
    assert WindowCurriculum(total_steps=100, schedule="direct").at(0) == (32, math.inf, 1.0)
    wide = WindowCurriculum(window=200, total_steps=100, schedule="direct")  # window_start plays no part
    assert wide.at(0) == (200, math.inf, 1.0)


@settings(max_examples=50, deadline=None)
@given(
    total=st.integers(1, 300),
    share=st.floats(0.001, 1.0),
    window=st.integers(1, 64),
    wider=st.integers(0, 64),
    schedule=st.sampled_from(["cosine", "linear"]),
)
def test_narrows_hardens_and_the_last_step_is_hard(
    total: int, share: float, window: int, wider: int, schedule: Any
) -> None:
    curriculum = WindowCurriculum(window + wider, window, total_steps=total, hard_fraction=share, schedule=schedule)
    course = [curriculum.at(step) for step in range(total)]
    for before, after in itertools.pairwise(course):
        assert after.window <= before.window
        assert after.tau >= before.tau
        assert after.alpha >= before.alpha
    assert course[-1] == (window, math.inf, 1.0)
    assert all(window <= now.window <= window + wider for now in course)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": 0}, "at least 1; got 0"),
        ({"window": 200}, "at least window = 200; got 128"),
        ({"tau_start": 0.0}, "got 0.0 and 10.0"),
        ({"tau_start": 20.0}, "got 20.0 and 10.0"),
        ({"tau_end": math.inf}, "got 0.1 and inf"),
        ({"hard_fraction": 0.0}, "got 0.0"),
        ({"schedule": "sine"}, "got 'sine'"),
        ({"total_steps": 0}, "got 0"),
    ],
)
def test_refuses(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowCurriculum(**wrong)


def test_without_a_length_it_knows_no_step() -> None:
    with pytest.raises(ValueError, match="pass total_steps"):
        WindowCurriculum().at(0)
    with pytest.raises(ValueError, match="pass total_steps"):
        WindowCurriculum().plot()
    with pytest.raises(ValueError, match="counted from 0, got -1"):
        WindowCurriculum(total_steps=3).at(-1)


def test_plot_has_w_and_tau_and_the_hard_stretch() -> None:
    figure = WindowCurriculum(total_steps=50).plot()
    left, right = figure.axes
    assert list(left.lines[0].get_ydata())[:1] == [128]
    assert list(left.lines[0].get_ydata())[-1] == 32
    assert right.get_yscale() == "log"
    assert max(tau for tau in right.lines[0].get_ydata() if math.isfinite(tau)) <= 10
    figure.canvas.draw()


def test_callback_under_a_stock_trainer(tmp_path: Path) -> None:
    """The window at every step is the curriculum's; the log has it; a saved model has the final one."""
    model = convert(QWEN2.build(), window=6)
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append((hook_of(model).window, hook_of(model).tau)))
    curriculum = WindowCurriculum(window_start=12, window=4, hard_fraction=0.25)
    options = TrainingArguments(
        str(tmp_path), max_steps=8, per_device_train_batch_size=2, logging_steps=1, save_strategy="no",
        remove_unused_columns=False, use_cpu=True, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    data = [{"input_ids": torch.randint(1, 97, (20,)), "conditioning": 5} for _ in range(16)]
    trainer = Trainer(
        model=model, args=options, data_collator=WandCollator(), train_dataset=data,
        callbacks=[CurriculumCallback(curriculum)],
    )  # fmt: skip
    trainer.train()
    expected = [WindowCurriculum(12, 4, total_steps=8, hard_fraction=0.25).at(step)[:2] for step in range(8)]
    assert seen == expected
    steps = [line for line in trainer.state.log_history if "loss" in line]
    assert [(line["window"], line["tau"]) for line in steps] == expected
    model.save_pretrained(tmp_path / "student")
    assert hook_of(load(tmp_path / "student")).window == 4
    assert hook_of(model).tau == math.inf
