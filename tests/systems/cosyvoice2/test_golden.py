"""Our modules make what the original made: golden.npz, by make_golden.py from the original's own classes."""

from __future__ import annotations

import numpy as np
import pytest

from . import cases
from .make_golden import PATH, shown


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(PATH) as stored:
        return dict(stored)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_module_makes_what_the_original_made(case: cases.Case, golden: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(shown(case, case.output()), golden[case.name], atol=1e-4, rtol=0)


def test_golden_values_cover_every_case_and_stay_small(golden: dict[str, np.ndarray]) -> None:
    assert set(golden) == {case.name for case in cases.CASES}
    assert PATH.stat().st_size < 1_000_000
    assert all(values.std() > 1e-3 for values in golden.values()), "a module that says nothing proves nothing"
