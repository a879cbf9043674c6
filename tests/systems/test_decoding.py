"""The loop of every system: its tokens are those of generate, its clock and cache what they are said to be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_system import WINDOW, TinySystem

from wandlib.attention.conversion import full_attention, set_window
from wandlib.systems.decoding import Sampler

TEXT = "one seventeen a of thunderstorms"


@pytest.mark.parametrize("embeds", [False, True])
@pytest.mark.parametrize("window", [None, 1, WINDOW, 1000])
def test_codes_are_those_of_generate(window: int | None, embeds: bool) -> None:
    system = TinySystem(embeds=embeds)
    attention: Any = "full" if window is None else "window"
    speech = system.synthesize(TEXT, attention=attention, window=window)
    model, ids = system.model, system.ids(TEXT)
    options = {"max_new_tokens": system.limit + len(TEXT) % 5, "do_sample": False, "eos_token_id": None}
    with torch.inference_mode():
        if window in (None, 1000):
            with full_attention(model):
                expected = model.generate(ids, **options)
        else:
            expected = set_window(model, window=window).generate(ids, **options)
    assert speech.codes.tolist() == expected[0, ids.shape[1] :].tolist()
    assert speech.trace.finish == "limit"
    assert speech.trace.conditioning == ids.shape[1]


def test_full_attention_differs_from_the_window() -> None:
    system = TinySystem(40)
    assert (
        system.synthesize(TEXT).codes.tolist() != system.synthesize(TEXT, attention="window", window=1).codes.tolist()
    )


def test_steps_are_counted_and_weighed() -> None:
    system, seen = TinySystem(), []
    trace = system.synthesize(TEXT, attention="window", on_step=seen.append).trace
    assert trace.steps == seen
    assert [step.index for step in seen] == list(range(len(trace.steps)))
    assert trace.parts == [len(trace.steps)]
    assert len({step.cache_bytes for step in seen}) == 1
    growing = system.synthesize(TEXT).trace.cache_bytes
    per_token = growing[1] - growing[0]
    assert growing == [per_token * (trace.conditioning + 1 + n) for n in range(len(growing))]


def test_an_end_token_ends() -> None:
    codes = TinySystem(30).synthesize(TEXT).codes.tolist()
    first = codes.index(codes[-1])
    ended = TinySystem(30, frozenset({codes[-1]})).synthesize(TEXT)
    assert ended.codes.tolist() == codes[:first]
    assert ended.trace.finish == "end"
    assert len(ended.trace.steps) == first


def test_an_error_in_on_step_comes_through() -> None:
    def stop(step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TinySystem().synthesize(TEXT, on_step=stop)


@pytest.mark.parametrize("allowed", [None, torch.tensor([3, 1, 7])])
def test_sampling_by_hand(allowed: torch.Tensor | None) -> None:
    """Frequencies of many draws against the probabilities of the best that are kept."""
    scores = torch.tensor([0.5, 2.0, -1.0, 1.0, 0.0, -torch.inf, 3.0, 1.5])
    choices = torch.arange(8) if allowed is None else allowed
    kept = scores[choices].topk(2).indices
    expected = torch.zeros(8)
    expected[choices[kept]] = (scores[choices[kept]] / 0.7).softmax(0)
    sampler = Sampler(0, 0.7, 2, allowed=allowed)
    drawn = torch.bincount(torch.tensor([sampler(scores, []) for _ in range(4000)]), minlength=8) / 4000
    assert (drawn - expected).abs().max() < 0.03
    greedy = Sampler(0, 1e-4, 2, allowed=allowed)
    assert {greedy(scores, []) for _ in range(3)} == {int(expected.argmax())}


def test_top_p_keeps_what_it_takes() -> None:
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    for top_p, kept in ((0.4, {0}), (0.6, {0, 1}), (0.81, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        sampler = Sampler(1, 1.0, 10, top_p)
        assert {sampler(scores, []) for _ in range(300)} == kept


def test_a_seed_is_a_seed() -> None:
    system = TinySystem()
    one, two, other = (system.synthesize(TEXT, seed=seed, temperature=1.0).codes.tolist() for seed in (3, 3, 4))
    assert one == two != other
