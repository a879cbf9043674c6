"""The shapes of the paper's systems give the paper's numbers."""

from __future__ import annotations

import pytest

from wandlib.profiling.estimate import cache_bytes
from wandlib.profiling.paper_systems import SHAPES


# arXiv 2604.08558, table 1, 10 s of speech: MB under full attention and under the window, reduction in %.
@pytest.mark.parametrize(("name", "reduction"), [("cosyvoice2", 49.9), ("indextts", 66.2), ("sparktts", 60.5)])
def test_cache_reduction_of_ten_seconds(name: str, reduction: float) -> None:
    shape = SHAPES[name]
    tokens = {"conditioning": shape.conditioning, "generated": 10 * shape.codes_per_second}
    full = cache_bytes(shape.config, **tokens)
    window = cache_bytes(shape.config, **tokens, window=shape.window)
    assert 100 * (1 - window / full) == pytest.approx(reduction, abs=0.1)
