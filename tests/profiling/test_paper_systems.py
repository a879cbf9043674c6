"""The shapes of the paper's systems give the paper's numbers."""

from __future__ import annotations

import pytest

from wandlib.profiling.estimate import cache_bytes
from wandlib.profiling.paper_systems import PAPER_TOKENS, SHAPES


# arXiv 2604.08558, table 1, 10 s of speech: MB under full attention and under the window, reduction in %.
@pytest.mark.parametrize(("name", "reduction"), [("cosyvoice2", 49.9), ("indextts", 66.2), ("sparktts", 60.5)])
def test_cache_reduction_of_ten_seconds(name: str, reduction: float) -> None:
    shape = SHAPES[name]
    tokens = {"conditioning": shape.conditioning, "generated": PAPER_TOKENS[name]}
    full = cache_bytes(shape.config, **tokens)
    window = cache_bytes(shape.config, **tokens, window=shape.window)
    assert 100 * (1 - window / full) == pytest.approx(reduction, abs=0.1)


def test_rates_are_those_of_the_systems() -> None:
    """IndexTTS makes 24 kHz sound, 1024 samples a code; the paper rounds that to 25 codes a second."""
    assert [round(shape.codes_per_second, 1) for shape in SHAPES.values()] == [25.0, 23.4, 50.0]
    assert SHAPES["indextts"].steps(10) == 234
    assert set(PAPER_TOKENS) == set(SHAPES)
