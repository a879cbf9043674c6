"""Any order of passes and operations on a cache: what each pass gives is what one pass over everything gives."""

from __future__ import annotations

import copy
from functools import cache as remembered
from random import Random
from typing import Any

import pytest
import torch
from feeding import feed
from hypothesis import given
from hypothesis import strategies as st
from naive import positions, steady
from tiny_models import SHAPE, VOCABULARY
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedModel

from wandlib import WandCache, convert

pytestmark = pytest.mark.usefixtures("no_grad")

CONDITIONING, GENERATED, PADDING = range(3)
SMALL = SHAPE | {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"num_key_value_heads": 1}
NOTHING = torch.zeros(0, 0, dtype=torch.long)


@remembered
def mistral(sliding: int | None, window: int, blocks: int | None, pinned: int | None) -> PreTrainedModel:
    torch.manual_seed(0)
    return convert(
        MistralForCausalLM(MistralConfig(**SMALL | {"sliding_window": sliding})).eval(),
        window,
        blocks=blocks,
        pinned=pinned,
    )


class Run:
    """A cache, and all tokens that it has seen: what a pass gives is checked against the whole sequence."""

    def __init__(self, model: PreTrainedModel, cache: WandCache, tolerance: float) -> None:
        self.model, self.cache, self.tolerance = model, cache, tolerance
        self.ids = self.kinds = NOTHING

    def go(self, kinds: Tensor, *, tell: bool) -> None:
        rows, length = kinds.shape
        before = self.ids.shape[1] if self.ids.numel() else 0
        ids = torch.randint(1, VOCABULARY, (rows, length))
        self.ids = torch.cat([self.ids, ids], 1) if before else ids
        self.kinds = torch.cat([self.kinds, kinds], 1) if before else kinds
        padding = self.kinds == PADDING
        said: dict[str, Any] = {"attention_mask": (~padding).long(), "position_ids": positions(padding)}
        whole = self.model(self.ids, conditioning=self.kinds == CONDITIONING, use_cache=False, **said).logits
        said["position_ids"] = said["position_ids"][:, before:]
        if tell:
            said["conditioning"] = kinds == CONDITIONING
        real = kinds != PADDING
        got = feed(self.model, self.cache, ids, **said)
        torch.testing.assert_close(got[real], whole[:, before:][real], atol=self.tolerance, rtol=0)

    def keep(self, rows: Tensor) -> None:
        self.ids, self.kinds = self.ids[rows], self.kinds[rows]


def beginning(draw: Random, rows: int, least: int) -> Tensor:
    """Conditioning, padded at its left or not."""
    left = [draw.choice((0, draw.randint(0, 3))) for _ in range(rows)]
    kinds = torch.full((rows, draw.randint(least, 7) + max(left)), CONDITIONING)
    for row, padding in enumerate(left):
        kinds[row, :padding] = PADDING
    return kinds


@steady
@given(st.randoms(use_true_random=False))
def test_any_operations(draw: Random) -> None:
    torch.manual_seed(draw.randint(0, 10**6))
    blocks = draw.choice((None, None, 1, 2))
    pinned = None if blocks is None else draw.choice((0, 2))
    model = mistral(draw.choice((None, 12, 40)), draw.choice((1, 2, 3, 5)), blocks, pinned)
    options = draw.choice(({}, {"static": True}, {"int8": True}))
    if "int8" in options and pinned == 0:
        options = {}
    run = Run(model, WandCache(model.config, **options), 1.5 if "int8" in options else 1e-3)
    least = max(1, pinned or 0)
    run.go(beginning(draw, draw.randint(1, 3), least), tell=draw.random() < 0.5)
    for _ in range(draw.randint(6, 14)):
        rows, cache = len(run.ids), run.cache
        match draw.choice(
            ("step",) * 5 + ("chunk",) * 2 + ("order", "select", "repeat", "crop", "copy", "to", "reset")
        ):
            case "step":
                run.go(torch.full((rows, 1), GENERATED), tell=False)
            case "chunk":
                kinds = draw.choices((CONDITIONING, CONDITIONING, GENERATED, GENERATED, PADDING), k=4 * rows)
                run.go(torch.tensor(kinds).view(rows, 4)[:, : draw.randint(1, 4)], tell=True)
            case "order":
                chosen = torch.tensor([draw.randrange(rows) for _ in range(rows)])
                cache.reorder_cache(chosen)
                run.keep(chosen)
            case "select":
                chosen = torch.tensor([draw.randrange(rows) for _ in range(draw.randint(1, rows))])
                cache.batch_select_indices(chosen)
                run.keep(chosen)
            case "repeat" if rows < 4:
                cache.batch_repeat_interleave(2)
                run.keep(torch.arange(rows).repeat_interleave(2))
            case "crop":
                removed = draw.randint(1, 3)
                try:
                    cache.crop(-removed)
                except ValueError:
                    continue
                run.ids, run.kinds = run.ids[:, :-removed], run.kinds[:, :-removed]
            case "copy":
                run.cache = copy.deepcopy(cache)
            case "to":
                cache.to(dtype=torch.float32)
            case "reset":
                cache.reset()
                run.ids = run.kinds = NOTHING
                run.go(beginning(draw, draw.randint(1, 3), least), tell=False)


def test_what_is_taken_back_leaves_no_trace_in_the_masks() -> None:
    """Ten tokens, four of them taken back, in rows that are padded, under a sliding window that is not yet reached."""
    model = mistral(40, 5, None, None)
    run = Run(model, WandCache(model.config), 1e-3)
    run.go(torch.tensor([[2, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]), tell=False)
    for _ in range(4):
        run.go(torch.full((2, 1), GENERATED), tell=False)
    run.cache.crop(-4)
    run.cache.reorder_cache(torch.tensor([0, 1]))
    run.ids, run.kinds = run.ids[:, :-4], run.kinds[:, :-4]
    for _ in range(8):
        run.go(torch.full((2, 1), GENERATED), tell=False)


# -------------------------------------------------------------------------------------- what a cache was made with


@pytest.mark.parametrize("told", [False, True], ids=["untold", "first pass told"])
@pytest.mark.parametrize("options", [{"conditioning": 9}, {"conditioning_until": 90}], ids=str)
def test_a_pass_that_tells_its_kinds_ends_no_conditioning(options: dict[str, int], told: bool) -> None:
    model = mistral(None, 2, None, None)
    ids = torch.randint(1, 80, (1, 14))
    ids[0, 8] = 90
    kinds = torch.arange(14)[None] < 9
    expected = model(ids, conditioning=kinds, use_cache=False).logits
    cache = WandCache(model.config, **options)  # type: ignore[arg-type]
    out = [feed(model, cache, ids[:, :4], **{"conditioning": kinds[:, :4]} if told else {})]
    out += [feed(model, cache, one) for one in ids[:, 4:].split(1, 1)]
    torch.testing.assert_close(torch.cat(out, 1), expected, atol=1e-4, rtol=0)


def test_the_token_that_ends_conditioning_does_not_in_padding() -> None:
    model = mistral(None, 3, None, None)
    ids, padding = torch.randint(1, 80, (2, 16)), torch.zeros(2, 16, dtype=torch.bool)
    padding[1, :3], ids[1, :3], ids[:, 8] = True, 90, 90
    kinds, places = (torch.arange(16) < 9).expand(2, -1), positions(padding)
    mask = (~padding).long()
    expected = model(ids, conditioning=kinds, attention_mask=mask, position_ids=places, use_cache=False).logits
    cache = WandCache(model.config, conditioning_until=90)
    out = [feed(model, cache, ids[:, :6], attention_mask=mask[:, :6], position_ids=places[:, :6])]
    out += [feed(model, cache, ids[:, n : n + 1], position_ids=places[:, n : n + 1]) for n in range(6, 16)]
    torch.testing.assert_close(torch.cat(out, 1)[~padding], expected[~padding], atol=1e-4, rtol=0)


def test_reset_brings_back_what_the_cache_was_made_with() -> None:
    model, ids = mistral(None, 3, None, None), torch.randint(1, VOCABULARY, (2, 14))
    cache = WandCache(model.config, conditioning=torch.arange(8) < torch.tensor([[3], [6]]))

    def decoded() -> Tensor:
        return torch.cat([feed(model, cache, part) for part in ids.split([8, *[1] * 6], 1)], 1)

    expected = decoded()
    for change in (cache.reorder_cache, cache.batch_select_indices):
        change(torch.tensor([1, 0]))
        cache.reset()
        torch.testing.assert_close(decoded(), expected)
    cache.batch_repeat_interleave(2)
    cache.reset()
    torch.testing.assert_close(decoded(), expected)


def test_a_static_cache_takes_another_dtype_after_reset() -> None:
    model, ids = copy.deepcopy(mistral(None, 3, None, None)), torch.randint(1, VOCABULARY, (1, 8))
    cache = WandCache(model.config, static=True, capacity=10)
    feed(model, cache, ids)
    cache.reset()
    model.bfloat16()
    feed(model, cache, ids)
    assert {layer.keys.dtype for layer in cache.layers} == {torch.bfloat16}


# ------------------------------------------------------------------------------- positions counted from the mask


@pytest.fixture(scope="module")
def opt() -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "num_hidden_layers": 2, "ffn_dim": 64}
    config = OPTConfig(
        vocab_size=VOCABULARY, num_attention_heads=4, max_position_embeddings=64, dropout=0.0, pad_token_id=0, **sizes
    )
    model = OPTForCausalLM(config).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.25)
    return convert(model, 4)


@pytest.mark.parametrize("told", [False, True], ids=["untold", "told"])
@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("padded", [[3, 3, 3, 3], [3, 3, 0, 0]], ids=str)
def test_a_decoder_that_counts_positions_from_the_mask(
    opt: PreTrainedModel, padded: list[int], shared: int, told: bool
) -> None:
    ids = torch.randint(1, VOCABULARY, (4, 18))
    ids[1, :8], ids[3, :8] = ids[0, :8], ids[2, :8]
    mask = (torch.arange(18) >= torch.tensor(padded)[:, None]).long()
    kinds = (torch.arange(18) < 8).expand(4, -1)
    expected = opt(ids, attention_mask=mask, conditioning=kinds, use_cache=False).logits
    cache, out = WandCache(opt.config, shared=shared), []
    for start, end in [(0, 8), *((n, n + 1) for n in range(8, 18))]:
        said = {"conditioning": kinds[:, :8]} if told and start == 0 else {}
        out.append(feed(opt, cache, ids[:, start:end], attention_mask=mask[:, :end], **said))
    real = mask == 1
    torch.testing.assert_close(torch.cat(out, 1)[real], expected[real], atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------------- inference mode

MODES = {"inference": torch.inference_mode, "no grad": torch.no_grad, "grad": torch.enable_grad}


@pytest.mark.parametrize(
    "kind", ["plain", "static", "int8", "ragged", "padded", "sliding", "reordered", "copied", "static, copied"]
)
@pytest.mark.parametrize("then", ["no grad", "grad"])
def test_a_cache_goes_on_outside_of_inference_mode(kind: str, then: str) -> None:
    """What ``torch.inference_mode`` makes cannot be written to elsewhere: buffers and counters are made to last."""
    model = mistral(6 if kind == "sliding" else None, 4, None, None)
    ids, steps = torch.randint(1, VOCABULARY, (2, 5)), torch.randint(1, VOCABULARY, (2, 13))
    kinds, mask = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 18, dtype=torch.long)
    kinds[1, 3:], mask[1, :2] = kind != "ragged", int(kind != "padded")
    options: dict[str, Any] = {"static": {"static": True, "capacity": 9}, "int8": {"int8": True}}.get(
        kind.removesuffix(", copied"), {}
    )

    def decode(first: str, then: str) -> Tensor:
        cache, out = WandCache(model.config, **options), []

        def go(new: Tensor, **told: Tensor) -> None:
            seen = mask[:, : int(cache.get_seq_length()) + new.shape[1]]
            out.append(feed(model, cache, new, attention_mask=seen, **told).clone())

        with MODES[first]():
            go(ids, conditioning=kinds)
            if kind == "reordered":
                cache.reorder_cache(torch.tensor([1, 0]))
            cache = copy.deepcopy(cache) if "copied" in kind else cache.to("cpu")
            for one in steps[:, :5].split(1, 1):
                go(one)
        with MODES[then]():
            for one in steps[:, 5:9].split(1, 1):
                go(one)
            go(steps[:, 9:12])
            go(steps[:, 12:])
        return torch.cat(out, 1).detach()

    assert torch.equal(decode("inference", then), decode("no grad", "no grad"))
