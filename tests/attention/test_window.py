"""The rule: every form of it agrees with a triple loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive import naive_visible, steady
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask

from wandlib.attention.checks import check_conditioning
from wandlib.attention.window import (
    PADDING,
    UNBOUNDED,
    Tokens,
    additive_mask,
    block_mask,
    boolean_mask,
    check_window,
    conditioning_until,
    mask_mod,
    prefix_conditioning,
    tokens,
)

windows = st.integers(1, 9)
limits = st.one_of(st.none(), st.integers(1, 9))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Conditioning and padding of a batch: prefixes, later blocks, padding anywhere."""
    batch, time = draw(st.integers(1, 3)), draw(st.integers(1, 14))
    kinds = draw(st.lists(st.sampled_from("ccgggp"), min_size=batch * time, max_size=batch * time))
    flags = torch.tensor([ord(kind) for kind in kinds]).view(batch, time)
    return flags == ord("c"), flags == ord("p")


@steady
@given(batches(), windows, limits)
def test_boolean_mask_is_the_triple_loop(batch: tuple[Tensor, Tensor], window: int, limit: int | None) -> None:
    conditioning, padding = batch
    sequence = tokens(conditioning, padding)
    mask = boolean_mask(sequence, sequence, window, sliding_window=limit)
    assert torch.equal(mask & ~padding[:, :, None], naive_visible(conditioning, padding, window, limit))
    assert mask.any(-1).all(), "a row with no key turns attention into NaN"


@steady
@given(batches(), windows, st.sampled_from([0.5, 3.0, float("inf")]), limits)
def test_additive_mask(batch: tuple[Tensor, Tensor], window: int, tau: float, limit: int | None) -> None:
    conditioning, padding = batch
    sequence = tokens(conditioning, padding)
    bias = additive_mask(sequence, sequence, window, torch.float32, tau, sliding_window=limit)[:, 0]
    hard = naive_visible(conditioning, padding, window, limit)
    causal = naive_visible(conditioning, padding, UNBOUNDED, limit)
    lowest = torch.finfo(torch.float32).min
    expected = torch.full(hard.shape, lowest)
    expected[causal] = max(-tau, lowest)
    expected[hard] = 0.0
    real = ~padding[:, :, None].expand_as(bias)
    assert torch.equal(bias[real], expected[real])


@steady
@given(batches(), windows, limits)
def test_flex_functions(batch: tuple[Tensor, Tensor], window: int, limit: int | None) -> None:
    sequence = tokens(*batch)
    size, time = batch[0].shape
    expected = boolean_mask(sequence, sequence, window, sliding_window=limit)
    mask = create_mask(mask_mod(sequence, window, sliding_window=limit), size, None, time, time, device="cpu")
    assert torch.equal(mask[:, 0], expected)


def test_block_mask_leaves_out_what_no_query_sees() -> None:
    sequence = tokens(prefix_conditioning(torch.tensor([128]), 1024))
    mask = block_mask(sequence, 32)
    full = block_mask(sequence, UNBOUNDED)
    assert int(full.kv_num_blocks.sum() + full.full_kv_num_blocks.sum()) == 8 * 9 // 2
    # Each block of 128 queries meets the prefix, its own block and the one before it.
    assert int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()) == 1 + 2 + 6 * 3


@steady
@given(st.integers(0, 6), st.integers(1, 30), windows)
def test_window_counts_its_own_key(prefix: int, generated: int, window: int) -> None:
    sequence = tokens(prefix_conditioning(torch.tensor([prefix]), prefix + generated))
    seen = boolean_mask(sequence, sequence, window)[0].sum(-1)[prefix:]
    assert seen.tolist() == [prefix + min(n, window) for n in range(1, generated + 1)]


@steady
@given(st.integers(1, 8), windows)
def test_later_conditioning_uses_up_no_window(block: int, window: int) -> None:
    """A block between generated tokens changes neither how many of them are seen nor which."""
    plain = torch.tensor([[True] * 3 + [False] * 12])
    broken = torch.tensor([[True] * 3 + [False] * 6 + [True] * block + [False] * 6])
    last = [boolean_mask(tokens(c), tokens(c), window)[0, -1][~c[0]] for c in (plain, broken)]
    assert torch.equal(*last)


@steady
@given(batches(), st.integers(0, 13))
def test_tokens_in_two_stretches(batch: tuple[Tensor, Tensor], cut: int) -> None:
    conditioning, padding = batch
    whole = tokens(conditioning, padding)
    before = (~conditioning & ~padding)[:, :cut].sum(1, keepdim=True)
    rest = tokens(conditioning[:, cut:], padding[:, cut:], cut, before)
    for part, whole_part in zip(rest, whole, strict=True):
        assert torch.equal(part, whole_part[:, cut:])


def test_padding_is_neither() -> None:
    described = tokens(torch.tensor([[True, True, False]]), torch.tensor([[True, False, False]]))
    assert described.conditioning.tolist() == [[False, True, False]]
    assert described.generated.tolist() == [[PADDING, 0, 1]]


def test_prefix_lengths_differ_in_a_batch() -> None:
    assert prefix_conditioning(torch.tensor([1, 3]), 4).int().tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]


def test_conditioning_until_a_token() -> None:
    ids = torch.tensor([[5, 9, 5, 9], [5, 5, 5, 5], [9, 5, 5, 5]])
    assert conditioning_until(ids, 9).int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize("window", [0, -3, True])
def test_window_below_one_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1; got {window!r}"):
        check_window(window)


def test_a_window_that_reaches_back_to_padding_is_refused() -> None:
    assert check_window(UNBOUNDED) == UNBOUNDED
    padded = tokens(torch.zeros(1, 4, dtype=torch.bool), torch.tensor([[True, True, False, False]]))
    assert not boolean_mask(padded, padded, UNBOUNDED)[0, 2:, :2].any()
    for window in (UNBOUNDED + 1, 2**40):
        with pytest.raises(ValueError, match=f"at most {UNBOUNDED}.*got {window}"):
            check_window(window)


@pytest.mark.parametrize(
    "wrong", [torch.ones(2, 3), torch.ones(1, 3, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)]
)
def test_conditioning_that_does_not_fit_is_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        check_conditioning(wrong, 2, 3)


def test_full_attention_is_the_widest_window() -> None:
    sequence = tokens(torch.zeros(1, 50, dtype=torch.bool))
    assert torch.equal(boolean_mask(sequence, sequence, UNBOUNDED)[0], torch.ones(50, 50).tril().bool())
    assert isinstance(sequence, Tokens)
