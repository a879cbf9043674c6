"""profile: every step measured, and the cache bytes those of accounting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import LANGUAGE_MODELS

from wandlib.attention.conversion import convert, full_attention
from wandlib.profiling.estimate import cache_bytes
from wandlib.profiling.measure import Profile, profile

QWEN2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "qwen2")


@pytest.fixture(scope="module")
def windowed() -> Profile:
    return profile(convert(QWEN2.build(), 6), conditioning=9, steps=12, batch=2, warmup=2)


def test_cache_bytes_are_constant_under_the_window(windowed: Profile) -> None:
    expected = cache_bytes(QWEN2.config(), conditioning=9, generated=12, window=6, batch=2)
    assert windowed.cache_bytes == [expected] * 12
    assert (windowed.window, windowed.conditioning, windowed.batch, windowed.device) == (6, 9, 2, "cpu")


def test_a_model_is_measured_under_its_own_rule() -> None:
    """Every token of the prefill is conditioning, and blocks expire as in generate."""
    expected = cache_bytes(QWEN2.config(), conditioning=9, generated=8, window=6)
    for rule in ({"conditioning_until": 3}, {"blocks": 2, "pinned": 4}):
        measured = profile(convert(QWEN2.build(), 6, **rule), conditioning=9, steps=8, warmup=0)
        assert measured.cache_bytes == [expected] * 8
    with pytest.raises(ValueError, match="pinned=12 conditioning tokens are to come before"):
        profile(convert(QWEN2.build(), 6, blocks=2, pinned=12), conditioning=9, steps=8, warmup=0)


def test_cache_bytes_grow_under_full_attention() -> None:
    model = convert(QWEN2.build(), 6)
    with full_attention(model):
        full = profile(model, conditioning=9, steps=5, warmup=0)
    assert full.window is None
    assert full.cache_bytes == [cache_bytes(QWEN2.config(), conditioning=9, generated=n) for n in range(1, 6)]
    assert profile(QWEN2.build(), 9, 5, warmup=0).cache_bytes == full.cache_bytes


def test_every_step_is_measured(windowed: Profile) -> None:
    assert len(windowed.milliseconds) == len(windowed.memory_bytes) == 12
    assert all(0 < ms < 1e4 for ms in [*windowed.milliseconds, windowed.prefill_milliseconds])
    assert windowed.memory == "resident set"
    assert windowed.median_milliseconds == float(np.median(windowed.milliseconds))


def test_growth_is_the_late_step_over_the_early_one() -> None:
    measured = {"cache_bytes": [], "memory_bytes": [], "memory": "resident set", "prefill_milliseconds": 1.0}
    options = {"conditioning": 1, "window": None, "batch": 1, "device": "cpu"}
    assert Profile(milliseconds=[9.0] * 10 + [2.0] * 80 + [3.0] * 10, **measured, **options).growth == 1.5
    assert Profile(milliseconds=[4.0], **measured, **options).growth == 1.0


def test_resident_bytes_see_a_large_tensor() -> None:
    """In a process of its own: this one may hold freed memory enough to place the tensor in."""
    program = (
        "import torch; from wandlib.profiling.measure import resident_bytes; before = resident_bytes(); "
        "large = torch.ones(64 * 2**20, dtype=torch.uint8); print(resident_bytes() - before)"
    )
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert 0.8 < int(grown) / 2**26 < 1.5


def test_json_holds_everything(windowed: Profile, tmp_path: Path) -> None:
    text = windowed.to_json(tmp_path / "profile.json")
    assert (tmp_path / "profile.json").read_text(encoding="utf-8") == text
    assert Profile(**json.loads(text)) == windowed


def test_plot_shows_each_measurement(windowed: Profile) -> None:
    figure = windowed.plot()
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["step, ms", "cache, MB", "resident set, MB"]
    for axes, values in zip(
        figure.axes, (windowed.milliseconds, windowed.cache_bytes, windowed.memory_bytes), strict=True
    ):
        scale = 1 if axes.get_ylabel() == "step, ms" else 1e6
        assert axes.lines[0].get_ydata() == pytest.approx([value / scale for value in values])


@pytest.mark.parametrize(("conditioning", "steps"), [(0, 3), (3, 0), (2.5, 3)])
def test_nothing_to_measure_is_refused(conditioning: float, steps: int) -> None:
    with pytest.raises(ValueError, match="whole number, at least 1; got"):
        profile(QWEN2.build(), conditioning, steps)
