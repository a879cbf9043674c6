"""What masks and positions of a pass say is heeded, or refused: their shapes, what they hide, where they restart."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from feeding import feed
from naive import dense_masks, positions
from tiny_models import LANGUAGE_MODELS, VOCABULARY, Tiny
from torch import Tensor
from transformers import PreTrainedModel

from wandlib import WandCache, convert

pytestmark = pytest.mark.usefixtures("no_grad")

BY_NAME = {tiny.name: tiny for tiny in LANGUAGE_MODELS}
QWEN2 = BY_NAME["qwen2"]
HIDDEN = "does not hide the same tokens as before"


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return convert(QWEN2.build(), 5)


def ids(length: int, batch: int = 1) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, length))


def zeros(mask: Tensor, *columns: int) -> Tensor:
    return mask.clone().index_fill_(1, torch.tensor(columns), 0)


@pytest.mark.parametrize("shape", [(1, 20), (2, 3), (2, 1), (1, 9), (2, 20), (9,), (2, 9, 9)], ids=str)
def test_a_mask_that_does_not_fit_the_tokens_is_refused(model: PreTrainedModel, shape: tuple[int, ...]) -> None:
    """With and without a cache; a wider one, in a chunk too."""
    mask, new = torch.ones(shape, dtype=torch.long), ids(9, 2)
    with pytest.raises(ValueError, match=r"does not fit 9 new tokens after 0 in 2 sequence\(s\).*\[2, 9\]"):
        feed(model, WandCache(model.config, 5), new, attention_mask=mask)
    with pytest.raises(ValueError, match="does not fit 9 new tokens"):
        model(new, attention_mask=mask, conditioning=torch.ones_like(new, dtype=torch.bool), use_cache=False)
    cache = WandCache(model.config, 5)
    feed(model, cache, new)
    with pytest.raises(ValueError, match=r"does not fit 3 new tokens after 9.*\[2, 12\]"):
        feed(model, cache, ids(3, 2), attention_mask=torch.ones(2, 13))


def test_a_mask_for_one_sequence_of_several_is_refused(model: PreTrainedModel) -> None:
    causal = torch.ones(3, 1, 9, 9, dtype=torch.bool).tril()
    with pytest.raises(ValueError, match=r"does not cover the 9 new tokens after 0 of 2 sequence\(s\)"):
        feed(model, WandCache(model.config, 5), ids(9, 2), attention_mask=causal)
    one_for_all = causal[:1].clone()
    one_for_all[:, :, :, 0] = False
    cache = WandCache(model.config, 5)
    feed(model, cache, ids(9, 2), attention_mask=one_for_all)
    assert cache.layout.state.padding.tolist() == [[1], [1]]


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("padding", [0, 3])
def test_a_chunk_hides_what_was_padding_and_nothing_else(model: PreTrainedModel, length: int, padding: int) -> None:
    """What a mask says of held tokens is not read any further, so it must say what it said."""
    mask, prompt, new = torch.ones(2, 9 + length, dtype=torch.long), ids(9, 2), ids(length, 2)
    mask[0, :padding] = 0
    cache = WandCache(model.config, 5)
    place = positions(mask == 0)
    feed(model, cache, prompt, attention_mask=mask[:, :9], position_ids=place[:, :9])
    told = {"position_ids": place[:, 9:], "conditioning": torch.ones(2, length, dtype=torch.bool)}
    wrong = [zeros(mask, 5), zeros(mask, 0, 5)] + ([torch.ones_like(mask)] if padding else [])
    for one in wrong:
        with pytest.raises(ValueError, match=HIDDEN):
            feed(model, cache, new, attention_mask=one, **told)
    feed(model, cache, new, attention_mask=mask, **told)


def four(mask: Tensor, start: int, limit: int | None = None) -> Tensor:
    """The 4-D mask of what comes after ``start``, as transformers makes it of a 2-D one."""
    index = torch.arange(mask.shape[1])
    ago = index[:, None] - index
    seen = (ago >= 0) & (ago < (limit or mask.shape[1])) & (mask[:, None] != 0)
    return seen[:, None, start:]


@pytest.mark.parametrize("length", [1, 6])
@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma3"])
def test_a_chunk_with_a_mask_prepared_by_others(name: str, length: int) -> None:
    """The same of 4-D masks, of a sliding layer as far as it reaches."""
    tiny: Tiny = BY_NAME[name]
    model = convert(tiny.build(), 5)
    mask, prompt, new = torch.ones(2, 14 + length, dtype=torch.long), ids(14, 2), ids(length, 2)
    mask[0, :3] = 0
    place = positions(mask == 0)

    def prepared(said: Tensor) -> Any:
        by_kind = {limit: four(said, 14, limit) for limit in tiny.limits}
        if len(by_kind) == 1:
            return next(iter(by_kind.values()))
        return {"full_attention" if limit is None else "sliding_attention": one for limit, one in by_kind.items()}

    first = WandCache(model.config, 5)
    feed(model, first, prompt, attention_mask=mask[:, :14], position_ids=place[:, :14])
    held = copy.deepcopy(first)
    told = {"position_ids": place[:, 14:], "conditioning": torch.ones(2, length, dtype=torch.bool)}
    expected = feed(model, held, new, attention_mask=mask, **told)
    twin = copy.deepcopy(first)
    assert torch.equal(feed(model, twin, new, attention_mask=prepared(mask), **told), expected)
    for wrong in [zeros(mask, 10), zeros(mask, 9, 10, 11, 12)] + (
        [torch.ones_like(mask)] if None in tiny.limits else []
    ):
        with pytest.raises(ValueError, match=HIDDEN):
            feed(model, copy.deepcopy(first), new, attention_mask=prepared(wrong), **told)


def test_packed_rows_are_refused_beside_padding(model: PreTrainedModel) -> None:
    """Padding in the call, on either side, or held from before, hides no restart."""
    restart = torch.tensor([[0, 0, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]])
    mask = zeros(torch.ones(1, 12, dtype=torch.long), 0, 1)
    for row, said in ((restart, mask), (restart.roll(-2, 1), mask.flip(1))):
        with pytest.raises(ValueError, match="packed into one row cannot share a cache"):
            feed(model, WandCache(model.config, 5), ids(12), attention_mask=said, position_ids=row)
    cache = WandCache(model.config, 5)
    feed(model, cache, ids(4), attention_mask=mask[:, :4], position_ids=positions(mask == 0)[:, :4])
    told = {"position_ids": torch.tensor([[2, 3, 0, 1]]), "attention_mask": zeros(torch.ones(1, 8), 0, 1)}
    with pytest.raises(ValueError, match="packed into one row cannot share a cache"):
        feed(model, cache, ids(4), **told)


def test_positions_of_padding_say_nothing(model: PreTrainedModel) -> None:
    """`generate` gives padding a position of its own, larger than those that follow."""
    mask = zeros(torch.ones(1, 9, dtype=torch.long), 0, 1)
    place = positions(mask == 0).masked_fill(mask == 0, 5)
    new = ids(9)
    got = feed(model, WandCache(model.config, 5), new, attention_mask=mask, position_ids=place)
    conditioning = torch.ones(1, 9, dtype=torch.bool)
    dense = dense_masks(conditioning, mask == 0, 5, QWEN2.limits)
    expected = QWEN2.build()(new, attention_mask=dense, position_ids=place, use_cache=False).logits
    assert torch.allclose(got[:, 2:], expected[:, 2:], atol=1e-4)
