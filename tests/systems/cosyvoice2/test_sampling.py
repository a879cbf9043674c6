"""Repetition-aware sampling against its definition."""

from __future__ import annotations

import pytest
import torch

from wandlib.systems.cosyvoice2.sampling import LengthRule, RepetitionAware, RepetitionAwareSampling


def nucleus(probabilities: list[float], top_p: float, top_k: int) -> set[int]:
    """The slow way: add the most likely token while less than top_p, and fewer than top_k, are in."""
    chosen: set[int] = set()
    total = 0.0
    for token in sorted(range(len(probabilities)), key=lambda token: -probabilities[token]):
        if total < top_p and len(chosen) < top_k:
            total += probabilities[token]
            chosen.add(token)
    return chosen


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
def test_candidates_are_the_nucleus(spread: float) -> None:
    logits = spread * torch.randn(60)
    sampler, generator = RepetitionAware(top_k=8), torch.Generator().manual_seed(0)
    drawn = {sampler.candidate(logits, generator) for _ in range(3000)}
    wanted = nucleus(logits.double().softmax(-1).tolist(), 0.8, 8)
    assert drawn <= wanted
    likely = {token for token in wanted if logits.softmax(-1)[token] > 0.005}
    assert likely <= drawn


def test_a_sure_token_that_repeats_is_ruled_out() -> None:
    logits = torch.zeros(50)
    logits[7] = 20.0
    sampler, generator = RepetitionAware(), torch.Generator().manual_seed(0)
    assert sampler(logits, [], generator) == 7
    assert sampler(logits, [7] + [1] * 10, generator) == 7, "ten tokens ago is too long ago"
    others = {sampler(logits, [7] + [1] * 9, generator) for _ in range(2000)}
    assert others == set(range(50)) - {7}, "the whole distribution but that token"


def test_tolerance_counts_repetitions() -> None:
    sampler = RepetitionAware(tolerance=0.3)
    assert not sampler.repeats(7, [7, 7])
    assert sampler.repeats(7, [7, 7, 7])


def test_processor_leaves_one_token_or_all_but_one() -> None:
    scores = torch.zeros(2, 20)
    scores[:, 3] = 30.0
    ids = torch.tensor([[3, 3, 0], [3, 3, 3]])  # two tokens of prompt, one generated
    left = RepetitionAwareSampling(prompt_length=2)(ids, scores)
    assert left[0].isfinite().nonzero().tolist() == [[3]]
    assert left[1].isinf().nonzero().tolist() == [[3]]


def test_processor_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    RepetitionAwareSampling(0)(torch.zeros(1, 0, dtype=torch.long), torch.randn(1, 9, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), before)


def test_lengths() -> None:
    assert (LengthRule().minimum(7), LengthRule().maximum(7)) == (14, 140)
