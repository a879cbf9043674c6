"""Our modules make what the original made: golden.npz, by make_golden.py from the original's own classes."""

from __future__ import annotations

import numpy as np
import pytest

from . import cases
from .make_golden import PATH, STREAMED, keep


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(PATH) as stored:
        return dict(stored)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_module_makes_what_the_original_made(case: cases.Case, golden: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(keep(case.output(), case.shown), golden[case.name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("version", [2, 3])
def test_language_model_makes_what_the_original_made(version: int, golden: dict[str, np.ndarray]) -> None:
    made = keep(cases.language_model_logits(version), 1)
    np.testing.assert_allclose(made, golden[f"language model, version {version}"], atol=1e-4, rtol=0)


def test_streamed_sound_is_the_original_s(golden: dict[str, np.ndarray]) -> None:
    made = keep(cases.streamed(), STREAMED)
    np.testing.assert_allclose(made, golden["codes to sound, streamed"], atol=1e-4, rtol=0)


def test_golden_values_cover_every_case_and_stay_small(golden: dict[str, np.ndarray]) -> None:
    others = {"language model, version 2", "language model, version 3", "codes to sound, streamed"}
    assert set(golden) == {case.name for case in cases.CASES} | others
    assert PATH.stat().st_size < 1_000_000
    assert all(values.std() > 1e-3 for values in golden.values()), "a module that says nothing proves nothing"
