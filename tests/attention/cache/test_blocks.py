"""Conditioning that expires: text blocks come and go, what is pinned stays, and the bytes stand still."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from feeding import feed
from hypothesis import example, given
from hypothesis import strategies as st
from naive import positions, steady
from tiny_models import LANGUAGE_MODELS, VOCABULARY, Tiny
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask

from wandlib import WandCache, convert, set_window
from wandlib.attention.checks import check_blocks
from wandlib.attention.models import cache_inputs
from wandlib.attention.window import (
    UNBOUNDED,
    additive_mask,
    boolean_mask,
    mask_mod,
    text_blocks,
    tokens,
)

BY_NAME = {tiny.name: tiny for tiny in LANGUAGE_MODELS}
QWEN2 = BY_NAME["qwen2"]


# ------------------------------------------------------------------------------------------- the slow second path


def naive_blocks(kinds: str, pinned: int) -> list[int]:
    """Text blocks that have begun up to each token of ``kinds``: c conditioning, g generated, p padding."""
    begun, seen, last, out = 0, 0, "g", []
    for kind in kinds:
        if kind == "c":
            seen += 1
            if seen > pinned:
                begun += last != "t"
                last = "t"
        elif kind == "g":
            last = "g"
        out.append(begun)
    return out


def naive_seen(kinds: str, window: int, pinned: int, blocks: int, limit: int | None = None) -> Tensor:
    """Which key each query sees, [time, time], token by token; what padding sees is left False."""
    block, time = naive_blocks(kinds, pinned), len(kinds)
    conditioning_before = [kinds[: t + 1].count("c") for t in range(time)]
    seen = torch.zeros(time, time, dtype=torch.bool)
    for query in range(time):
        for key in range(query + 1):
            if "p" in (kinds[query], kinds[key]) or (limit is not None and query - key >= limit):
                continue
            if kinds[key] == "g":
                seen[query, key] = kinds[key + 1 : query + 1].count("g") < window
            else:
                is_pinned = conditioning_before[key] <= pinned
                seen[query, key] = is_pinned or block[query] - block[key] < blocks
    return seen


def flags(rows: list[str]) -> tuple[Tensor, Tensor]:
    symbols = torch.tensor([[ord(kind) for kind in row] for row in rows])
    return symbols == ord("c"), symbols == ord("p")


def dense(model: Any, tiny: Tiny, ids: Tensor, rows: list[str], window: int, pinned: int, blocks: int) -> Tensor:
    """Logits of an unconverted model over whole sequences under the naive masks."""
    _, padding = flags(rows)
    masks = {}
    for limit in set(tiny.limits):
        seen = torch.stack([naive_seen(row, window, pinned, blocks, limit) for row in rows])
        seen = seen | torch.eye(ids.shape[1], dtype=torch.bool)
        mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
        masks["full_attention" if limit is None else "sliding_attention"] = mask
    mask = masks if len(masks) > 1 else next(iter(masks.values()))
    return model(ids, attention_mask=mask, position_ids=positions(padding), use_cache=False).logits  # type: ignore[no-any-return]


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    """A batch of streams: pinned tokens, then blocks of text and of codes of random lengths, padding in places."""
    batch, pinned = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    length = draw(st.integers(pinned + 2, 24))
    rows = []
    for _ in range(batch):
        left = draw(st.integers(0, 2))
        rest = draw(st.lists(st.sampled_from("ccgggp"), min_size=length, max_size=length))
        rows.append("p" * left + "c" * pinned + "".join(rest)[: length - left - pinned])
    return {"rows": rows, "pinned": pinned, "window": draw(st.integers(1, 6)), "blocks": draw(st.integers(1, 4))}


# -------------------------------------------------------------------------------------------------------- the rule


@steady
@given(texts(), st.one_of(st.none(), st.integers(1, 9)))
def test_every_form_of_the_rule_is_the_naive_loop(case: dict[str, Any], limit: int | None) -> None:
    rows, pinned, window, blocks = case["rows"], case["pinned"], case["window"], case["blocks"]
    conditioning, padding = flags(rows)
    block = text_blocks(conditioning, padding, pinned)
    assert block.tolist() == [naive_blocks(row, pinned) for row in rows]
    sequence = tokens(conditioning, padding, block=block)
    expected = torch.stack([naive_seen(row, window, pinned, blocks, limit) for row in rows])
    options: dict[str, Any] = {"blocks": blocks, "sliding_window": limit}
    real = ~padding[:, :, None]
    seen = boolean_mask(sequence, sequence, window, **options)
    assert torch.equal(seen & real, expected)
    batch, time = conditioning.shape
    flex = create_mask(mask_mod(sequence, window, **options), batch, None, time, time, device="cpu")
    assert torch.equal(flex[:, 0], seen)
    everything = torch.stack([naive_seen(row, UNBOUNDED, pinned, UNBOUNDED, limit) for row in rows])
    soft = additive_mask(sequence, sequence, window, torch.float32, 3.0, **options)[:, 0]
    lowest = torch.finfo(torch.float32).min
    wanted = torch.full(soft.shape, lowest).masked_fill(everything, -3.0).masked_fill(expected, 0.0)
    assert torch.equal(soft.masked_fill(~real, 0.0), wanted.masked_fill(~real, 0.0))


@steady
@given(texts(), st.integers(1, 23))
def test_blocks_are_counted_on_from_where_they_were(case: dict[str, Any], cut: int) -> None:
    rows, pinned = case["rows"], case["pinned"]
    conditioning, padding = flags(rows)
    whole = text_blocks(conditioning, padding, pinned)
    cut = min(cut, conditioning.shape[1])
    seen = (conditioning & ~padding)[:, :cut].sum(1, keepdim=True)
    open_text = torch.tensor([[_open(row[:cut], pinned)] for row in rows])
    first = text_blocks(conditioning[:, :cut], padding[:, :cut], pinned)
    rest = text_blocks(
        conditioning[:, cut:], padding[:, cut:], pinned, seen=seen, begun=first[:, -1:], interrupted=~open_text
    )
    assert torch.equal(torch.cat([first, rest], 1), whole)


def _open(row: str, pinned: int) -> bool:
    """Whether a further conditioning token would belong to the block under way."""
    return naive_blocks(row + "c", pinned)[-1] == (naive_blocks(row, pinned) or [0])[-1] and row.count("c") > pinned


# ------------------------------------------------------------------------------------------------------- the cache


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("tiny", [QWEN2, BY_NAME["gemma3"]], ids=str)
def test_any_stream_agrees_with_one_dense_pass(tiny: Tiny, static: bool) -> None:
    """Blocks of random lengths that begin at different steps in each row, padding, calls of any length."""
    plain, windowed = tiny.build(), convert(tiny.build(), 4)

    @steady
    @given(texts(), st.lists(st.integers(1, 6), min_size=24, max_size=24))
    @example(
        {"rows": ["ccccc", "cccpc"], "pinned": 0, "window": 1, "blocks": 1}, [1, 1, 1, 2]
    )  # a call begins with padding
    @torch.no_grad()
    def check(case: dict[str, Any], calls: list[int]) -> None:
        rows = case["rows"]
        conditioning, padding = flags(rows)
        ids = torch.arange(conditioning.numel()).view(conditioning.shape) * 31 % (VOCABULARY - 1) + 1
        options = {name: case[name] for name in ("window", "pinned", "blocks")}
        expected = dense(plain, tiny, ids, rows, **options)
        cache = WandCache(windowed.config, **options, static=static, capacity=ids.shape[1] if static else None)
        got, start = [], 0
        while start < ids.shape[1]:
            new = slice(start, start := min(ids.shape[1], start + calls[len(got)]))
            inputs: dict[str, Any] = {"conditioning": conditioning[:, new], "position_ids": positions(padding)[:, new]}
            mask = (~padding[:, :start]).long()
            got.append(
                windowed(
                    ids[:, new], attention_mask=mask, use_cache=True, **inputs, **cache_inputs(windowed, cache)
                ).logits
            )
        assert torch.allclose(torch.cat(got, 1)[~padding], expected[~padding], atol=1e-4)

    check()


@st.composite
def conversations(draw: st.DrawFn) -> list[list[str]]:
    """Calls of a batch: a prompt, then plain steps, then text of another length in each row, and so on."""
    batch = draw(st.integers(1, 3))
    calls = [["cc" + "c" * draw(st.integers(1, 9))] * batch]
    for _ in range(draw(st.integers(1, 4))):
        calls += [["g"] * batch] * draw(st.integers(0, 6))
        sizes = draw(st.lists(st.integers(0, 4), min_size=batch, max_size=batch))
        calls += [["p" * (max(sizes) - size) + "c" * size for size in sizes]] * bool(max(sizes))
    return [*calls, *[["g"] * batch] * 5]


@pytest.mark.parametrize(
    ("options", "error"),
    [({}, 1e-4), ({"int8": True}, 0.5), ({"static": True, "block_capacity": 9}, 1e-4)],
    ids=["dynamic", "int8", "static"],
)
def test_plain_steps_agree_where_blocks_differ_from_row_to_row(options: dict[str, Any], error: float) -> None:
    """Steps that no flags come with, also after the room that the longest texts needed is no longer used."""
    plain = QWEN2.build()
    windowed = convert(QWEN2.build(), 4, blocks=2, pinned=2)

    @steady
    @given(conversations())
    @example([["c" * 11] * 2, *[["g"] * 2] * 6, ["cc", "pp"], *[["g"] * 2] * 5, ["ppp", "ccc"], *[["g"] * 2] * 5])
    @torch.no_grad()
    def check(calls: list[list[str]]) -> None:
        rows = ["".join(row) for row in zip(*calls, strict=True)]
        conditioning, padding = flags(rows)
        ids = torch.arange(conditioning.numel()).view(conditioning.shape) * 31 % (VOCABULARY - 1) + 1
        expected = dense(plain, QWEN2, ids, rows, window=4, pinned=2, blocks=2)
        cache, got, start = WandCache(windowed.config, **options), [], 0
        for call in calls:
            new = slice(start, start := start + len(call[0]))
            inputs: dict[str, Any] = {"position_ids": positions(padding)[:, new]}
            if set(call) != {"g"}:
                inputs["conditioning"] = conditioning[:, new]
            feed = cache_inputs(windowed, cache) | {"attention_mask": (~padding[:, :start]).long(), "use_cache": True}
            got.append(windowed(ids[:, new], **inputs, **feed).logits)
        assert torch.allclose(torch.cat(got, 1)[~padding], expected[~padding], atol=error)

    check()


def stream(model: Any, cache: WandCache, schedule: list[tuple[int, int]], pinned: int, batch: int = 1) -> Any:
    """Speak blocks: for each (text, codes), the text in one call and the codes greedily; all tokens and logits."""
    feed = cache_inputs(model, cache) | {"use_cache": True}
    generator = torch.Generator().manual_seed(3)
    ids, logits, kinds = [], [], ""
    for number, (text, codes) in enumerate(schedule):
        new = torch.randint(1, VOCABULARY, (1, text + (0 if number else pinned)), generator=generator).expand(batch, -1)
        conditioning = torch.ones_like(new, dtype=torch.bool)
        logits.append(model(new, conditioning=conditioning, **feed).logits)
        ids.append(new)
        kinds += "c" * new.shape[1] + "g" * codes
        for _ in range(codes):
            token = logits[-1][:, -1:].argmax(-1)
            ids.append(token)
            logits.append(model(token, **feed).logits)
    return torch.cat(ids, 1), torch.cat(logits, 1), kinds


SCHEDULE = [(3 + (7 * n) % 6, 9 + (5 * n) % 9) for n in range(40)]
"""Forty blocks of 3 to 8 tokens of text and 9 to 17 codes: 516 steps."""


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"static": True, "block_capacity": 8}], ids=["dynamic", "static"])
@pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
@torch.no_grad()
def test_forty_blocks_and_five_hundred_steps(tiny: Tiny, options: dict[str, Any]) -> None:
    """Token by token what recomputing under the dense mask gives, at bytes that stand still."""
    pinned, window, blocks = 7, 6, 2
    model = tiny.build(max_position_embeddings=1024)
    plain = copy.deepcopy(model)
    convert(model, window, blocks=blocks, pinned=pinned)
    cache = WandCache(model.config, window, pinned=pinned, blocks=blocks, **options)
    ids, logits, kinds = stream(model, cache, SCHEDULE, pinned)
    assert kinds.count("g") >= 500
    expected = dense(plain, tiny, ids, [kinds], window, pinned, blocks)
    assert torch.allclose(logits, expected, atol=2e-4)
    generated = torch.tensor([kind == "g" for kind in kinds])
    assert torch.equal(expected[0, :-1].argmax(-1)[generated[1:]], ids[0, 1:][generated[1:]])
    shape = model.config.get_text_config()
    longest = 2 * 8 if options else max(one[0] + other[0] for one, other in pairwise(SCHEDULE))
    slots = pinned + longest + window
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    assert cache.nbytes == 2 * 3 * heads * 8 * slots * 4


@pytest.mark.parametrize("options", [{}, {"static": True, "block_capacity": 8}, {"int8": True}], ids=str)
@torch.no_grad()
def test_bytes_stand_still_once_the_largest_blocks_were_seen(options: dict[str, Any]) -> None:
    model = convert(QWEN2.build(), 6)
    cache = WandCache(model.config, 6, pinned=7, blocks=2, **options)
    schedule = [(8, 4), (8, 4), *((3 + n % 5, 4) for n in range(12))]
    held = []
    for number, block in enumerate(schedule):
        stream(model, cache, [block], 7 if number == 0 else 0)
        held.append(cache.nbytes)
    assert len(set(held[1:])) == 1
    if not options:
        assert held[-1] == 2 * 3 * 2 * 8 * 4 * (7 + 16 + 6)
    pinned_keys = cache.layers[0].held(7)[0]
    assert pinned_keys.shape[2] == 7


@torch.no_grad()
def test_int8_rounds_what_is_pinned_once() -> None:
    """The quantized entries do not change by a bit over twelve blocks, so that no error can grow."""
    model = convert(QWEN2.build(), 6)
    cache = WandCache(model.config, 6, pinned=7, blocks=2, int8=True)
    stream(model, cache, [(4, 5)], 7)
    before = [part.clone() for part in cache.layers[1].quantized]
    for _ in range(12):
        stream(model, cache, [(5, 6)], 0)
    assert before[0].shape[2] == 7
    for old, new in zip(before, cache.layers[1].quantized, strict=True):
        assert torch.equal(old, new)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"static": True, "block_capacity": 9}], ids=["dynamic", "static"])
def test_beams_and_copies_take_their_blocks_along(options: dict[str, Any]) -> None:
    model = convert(QWEN2.build(), 5)
    cache = WandCache(model.config, 5, pinned=3, blocks=2, **options)
    stream(model, cache, [(4, 7), (5, 6)], 3, batch=2)
    twin = copy.deepcopy(cache)
    twin.reorder_cache(torch.tensor([1, 0]))
    new = torch.randint(1, VOCABULARY, (2, 4))
    feed = {"use_cache": True, "conditioning": torch.ones(2, 4, dtype=torch.bool)}
    one = model(new, **feed, **cache_inputs(model, cache)).logits
    other = model(new.flip(0), **feed, **cache_inputs(model, twin)).logits
    assert torch.allclose(one, other.flip(0), atol=1e-5)
    assert torch.equal(cache.layout.state.block, twin.layout.state.block)


@torch.no_grad()
def test_training_and_scoring_under_blocks() -> None:
    """Counted from the kinds, or told for each token; the soft mask leaves expired text a way in."""
    plain, rows = QWEN2.build(), ["ccccgggggccgggggcccgggggccgggg"]
    conditioning, padding = flags(rows)
    ids = torch.randint(1, VOCABULARY, conditioning.shape)
    expected = dense(plain, QWEN2, ids, rows, 4, 2, 2)
    model = convert(copy.deepcopy(plain), 4, blocks=2, pinned=2)
    told = {"conditioning": conditioning, "use_cache": False}
    assert torch.allclose(model(ids, **told).logits, expected, atol=1e-4)
    block = text_blocks(conditioning, padding, 2)
    assert torch.allclose(model(ids, **told, block=block).logits, expected, atol=1e-4)
    pinned_whole = torch.zeros_like(block)
    assert not torch.allclose(model(ids, **told, block=pinned_whole).logits, expected, atol=1e-2)
    soft = set_window(model, tau=0.0)(ids, **told).logits
    assert torch.allclose(soft, plain(ids, use_cache=False).logits, atol=1e-4)


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, "blocks is how many"),
        ({"blocks": 1.5}, "blocks is how many"),
        ({"pinned": 3}, "give blocks too"),
        ({"blocks": 2, "pinned": -1}, "at least 0"),
        ({"blocks": 2, "shared": 3}, "leave out shared"),
        ({"blocks": 2, "int8": True}, "never expires"),
        ({"blocks": 2, "static": True, "block_capacity": 0}, "longest text block"),
        ({"blocks": 2, "static": True, "block_capacity": 4.5}, "longest text block"),
        ({"blocks": 2**40}, "blocks is how many"),
        ({"static": True, "block_capacity": 5}, "needs blocks"),
        ({"blocks": 2, "block_capacity": 5}, "static=True"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WandCache(QWEN2.config(), 6, **options)
    if not {"shared", "int8"} & set(options) and "static" not in options and "block_capacity" not in options:
        with pytest.raises(ValueError, match=message):
            check_blocks(options.get("blocks"), options.get("pinned"))


@torch.no_grad()
def test_a_block_longer_than_its_capacity_is_refused_and_nothing_lost() -> None:
    model = convert(QWEN2.build(), 6)
    cache = WandCache(model.config, 6, pinned=3, blocks=2, static=True, block_capacity=4)
    stream(model, cache, [(4, 5), (4, 5)], 3)
    twin = copy.deepcopy(cache)
    told = {"use_cache": True, "conditioning": torch.ones(1, 9, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"do not fit pinned=3 and 2 blocks of block_capacity=4"):
        model(torch.ones(1, 9, dtype=torch.long), **told, **cache_inputs(model, cache))
    step = torch.ones(1, 1, dtype=torch.long)
    one, other = (model(step, use_cache=True, **cache_inputs(model, held)).logits for held in (cache, twin))
    assert torch.equal(one, other)


@torch.no_grad()
@pytest.mark.parametrize("blocks", [None, 2])
def test_numbers_of_blocks_that_do_not_fit_are_refused(blocks: int | None) -> None:
    """With and without a cache; they go on from what is held, and that of padding does not matter."""
    model = convert(QWEN2.build(), 6, blocks=blocks, pinned=None if blocks is None else 2)
    ids = torch.ones(1, 9, dtype=torch.long)
    told: dict[str, Any] = {"conditioning": torch.ones(1, 9, dtype=torch.bool)}
    rising = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 3, 3]])
    for wrong in (torch.tensor([[1, 2, 3]]), rising.float(), rising > 0, rising.expand(2, -1)):
        for use_cache in (True, False):
            with pytest.raises(ValueError, match=r"whole numbers of shape \[batch, time\] = \[1, 9\].*got"):
                model(ids, block=wrong, use_cache=use_cache, **told)
    for use_cache in (True, False):
        with pytest.raises(ValueError, match="it never falls"):
            model(ids, block=rising.flip(1), use_cache=use_cache, **told)
        mask = torch.ones(1, 9).index_fill_(1, torch.tensor([3]), 0)
        model(ids, block=rising.index_fill(1, torch.tensor([3]), 0), attention_mask=mask, use_cache=use_cache, **told)
    cache = WandCache(model.config, 6, blocks=blocks, pinned=None if blocks is None else 2)
    feed = cache_inputs(model, cache) | {"use_cache": True}
    model(ids, block=rising, **told, **feed)
    if blocks is not None:
        with pytest.raises(ValueError, match="it never falls"):
            model(ids, block=rising, **told, **feed)
    model(ids, block=rising + 3, **told, **feed)


@torch.no_grad()
def test_pinned_tokens_that_never_came_are_missed() -> None:
    model = convert(QWEN2.build(), 6)
    cache = WandCache(model.config, 6, pinned=76, blocks=2)
    feed = cache_inputs(model, cache) | {"use_cache": True}
    model(torch.ones(1, 40, dtype=torch.long), **feed)
    with pytest.raises(ValueError, match=r"pinned=76 conditioning tokens are to come before.*40 did"):
        model(torch.ones(1, 1, dtype=torch.long), **feed)


def test_blocks_are_saved_and_loaded(tmp_path: Any) -> None:
    import wandlib

    model = convert(QWEN2.build(), 6, blocks=2, pinned=3)
    model.save_pretrained(tmp_path)
    loaded = wandlib.load(tmp_path)
    assert loaded.config.wand == {"window": 6, "conditioning_until": None, "blocks": 2, "pinned": 3}
    cache = loaded(torch.ones(1, 5, dtype=torch.long), use_cache=True)[cache_name(loaded)]
    assert (cache.layout.blocks, cache.layout.pinned) == (2, 3)


def cache_name(model: Any) -> str:
    return next(iter(cache_inputs(model, None)))


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("told", [False, True], ids=["blocks alone", "with kinds"])
def test_blocks_that_a_prefill_tells(told: bool, static: bool) -> None:
    """Four blocks in one pass, two visible: as in one pass over everything, and what has expired is not held."""
    model, ids = convert(QWEN2.build(), 4, blocks=2, pinned=2), torch.randint(1, VOCABULARY, (1, 14))
    block = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3]])
    kinds = torch.arange(14)[None] < 10
    expected = model(ids, conditioning=kinds, block=block, use_cache=False).logits
    cache = WandCache(model.config, static=static)
    said = {"conditioning": kinds[:, :10]} if told else {}
    out = [feed(model, cache, ids[:, :10], block=block[:, :10], **said)]
    out += [feed(model, cache, one) for one in ids[:, 10:].split(1, 1)]
    torch.testing.assert_close(torch.cat(out, 1), expected, atol=1e-4, rtol=0)
    assert cache.layout.state.prefix_tokens == 2 + 3 + 2


@pytest.mark.parametrize("number", [0, 3])
def test_how_padding_is_numbered_does_not_matter(number: int) -> None:
    """Padding in the last columns of a pass, whichever block it is said to be in."""
    model, ids = convert(QWEN2.build(), 4, blocks=2, pinned=2), torch.randint(1, VOCABULARY, (2, 16))
    padding = torch.zeros(2, 16, dtype=torch.bool)
    padding[1, 10:12] = True
    kinds, places = (torch.arange(16) < 12).expand(2, -1), positions(padding)
    block = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]]).repeat(2, 1)
    mask, said = (~padding).long(), {"use_cache": False}
    expected = model(ids, conditioning=kinds, block=block, attention_mask=mask, position_ids=places, **said).logits
    block[1, 10:12] = number
    cache, first = WandCache(model.config), slice(0, 12)
    given = {"conditioning": kinds[:, first], "block": block[:, first], "attention_mask": mask[:, first]}
    out = [feed(model, cache, ids[:, first], position_ids=places[:, first], **given)]
    out += [feed(model, cache, ids[:, n : n + 1], position_ids=places[:, n : n + 1]) for n in range(12, 16)]
    torch.testing.assert_close(torch.cat(out, 1)[~padding], expected[~padding], atol=1e-4, rtol=0)
