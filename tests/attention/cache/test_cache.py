"""WandCache: however the tokens come in, attention reads what the rule says and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import jaxtyping
import pytest
import torch
from feeding import feed
from hypothesis import given
from hypothesis import strategies as st
from naive import dense_masks, positions, steady
from tiny_models import LANGUAGE_MODELS, VOCABULARY, Tiny
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.cache.layers import WandLayer
from wandlib.attention.cache.layout import CacheLayout
from wandlib.attention.cache.state import LayoutState
from wandlib.attention.cache.updates import Rebuild, ScatterWrite
from wandlib.attention.conversion import convert, restore
from wandlib.profiling.estimate import cache_bytes

pytestmark = pytest.mark.usefixtures("no_grad")

BY_NAME = {tiny.name: tiny for tiny in LANGUAGE_MODELS}
QWEN2 = BY_NAME["qwen2"]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return convert(QWEN2.build(), 6)


def prompt(length: int, batch: int = 1) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, length))


def filled(model: PreTrainedModel, steps: int, batch: int = 1, conditioning: int = 5, **options: Any) -> WandCache:
    cache = WandCache(model.config, 6, **options)
    feed(model, cache, prompt(conditioning, batch))
    for _ in range(steps):
        feed(model, cache, prompt(1, batch))
    return cache


def dense(
    model: PreTrainedModel, tiny: Tiny, ids: Tensor, conditioning: Tensor, padding: Tensor, window: int
) -> Tensor:
    """Logits of the unconverted model over the whole sequence under the triple-loop mask."""
    mask = dense_masks(conditioning, padding, window, tiny.limits)
    return model(input_ids=ids, attention_mask=mask, position_ids=positions(padding), use_cache=False).logits


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, Any]:
    """A batch that arrives in calls of one or several tokens, each of them conditioning or generated."""
    batch = draw(st.integers(1, 3))
    calls = draw(st.lists(st.one_of(st.just(1), st.integers(1, 7)), min_size=1, max_size=12))
    time = sum(calls)
    shared = draw(st.booleans())  # the same kinds in every sample, or a ragged batch
    kinds = draw(st.lists(st.booleans(), min_size=time * batch, max_size=time * batch))
    conditioning = torch.tensor(kinds).view(batch, time)
    if shared:
        conditioning = conditioning[:1].expand(batch, -1).contiguous()
    lengths = draw(st.lists(st.integers(0, calls[0] - 1), min_size=batch, max_size=batch))
    padding = torch.arange(time) < torch.tensor(lengths)[:, None]
    return {"calls": calls, "conditioning": conditioning, "padding": padding, "window": draw(st.integers(1, 8))}


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("tiny", [QWEN2, BY_NAME["gemma3"], BY_NAME["mistral"]], ids=str)
def test_any_schedule_agrees_with_one_dense_pass(tiny: Tiny, static: bool) -> None:
    """Prefill shorter and longer than W, chunks, conditioning in mid-stream, left padding, ragged batches."""
    plain = tiny.build()
    windowed = convert(tiny.build(), 4)

    @steady
    @given(schedules())
    def check(case: dict[str, Any]) -> None:
        conditioning, padding = case["conditioning"], case["padding"]
        ids = torch.arange(conditioning.numel()).view(conditioning.shape) * 31 % (VOCABULARY - 1) + 1
        expected = dense(plain, tiny, ids, conditioning, padding, case["window"])
        cache = WandCache(windowed.config, case["window"], static=static, capacity=ids.shape[1] if static else None)
        got, start = [], 0
        for length in case["calls"]:
            new = slice(start, start := start + length)
            got.append(
                feed(
                    windowed,
                    cache,
                    ids[:, new],
                    conditioning=conditioning[:, new],
                    attention_mask=(~padding[:, :start]).long(),
                    position_ids=positions(padding)[:, new],
                )
            )
        assert torch.allclose(torch.cat(got, 1)[~padding], expected[~padding], atol=1e-4)
        assert cache.get_seq_length() == ids.shape[1]

    check()


@pytest.mark.parametrize("steps", [0, 1, 5, 6, 7, 20])
def test_unwritten_slots_hold_nan_and_nothing_reads_them(model: PreTrainedModel, steps: int) -> None:
    cache = filled(model, steps)
    for layer in cache.layers:
        for held in (layer.keys, layer.values):
            assert held.shape[2] == 5 + 6
            assert held[:, :, : 5 + min(steps, 6)].isfinite().all()
            assert held[:, :, 5 + min(steps, 6) :].isnan().all()
    assert feed(model, cache, prompt(1)).isfinite().all()


def test_ring_keeps_the_last_window_in_place(model: PreTrainedModel) -> None:
    """Token n lies in slot P + n % W, and a step writes that slot and no other."""
    cache = filled(model, 9)
    before = [layer.keys.clone() for layer in cache.layers]
    address = cache.layers[0].keys.data_ptr()
    feed(model, cache, prompt(1))
    for layer, old in zip(cache.layers, before, strict=True):
        changed = (layer.keys != old).any(-1).any(1)[0]
        assert changed.nonzero().flatten().tolist() == [5 + 9 % 6]
    assert cache.layers[0].keys.data_ptr() == address


def test_bytes_are_constant_once_the_prompt_is_in(model: PreTrainedModel) -> None:
    cache = WandCache(model.config, 6)
    assert cache.nbytes == 0
    feed(model, cache, prompt(5))
    held = set()
    for _ in range(20):
        feed(model, cache, prompt(1))
        held.add(cache.nbytes)
    assert held == {2 * 3 * 2 * 8 * (5 + 6) * 4}  # K and V, layers, kv heads, head_dim, slots, bytes of a float
    assert cache.get_seq_length() == 25
    assert cache.generated == 20


def test_conditioning_given_to_the_cache(model: PreTrainedModel) -> None:
    """A number of tokens or a mask says where conditioning ends, whatever the calls look like."""
    ids = prompt(16, 2)
    mask = torch.arange(16) < 7
    reference = dense(QWEN2.build(), QWEN2, ids, mask.expand(2, -1), torch.zeros(2, 16, dtype=torch.bool), 6)
    for conditioning in (7, mask[None, :16], mask[:9].expand(2, -1)):
        for calls in ((9, 1, 1, 1, 4), (4, 3, 1, 1, 7), (1, 1, 6, 8)):
            cache = WandCache(model.config, 6, conditioning=conditioning)
            got = torch.cat([feed(model, cache, part) for part in ids.split(calls, 1)], 1)
            assert torch.allclose(got, reference, atol=1e-4)


def test_conditioning_until_a_token_that_the_model_generates(model: PreTrainedModel) -> None:
    ids = prompt(20, 3)
    ids[ids == 9] = 8
    ids[0, 4], ids[1, 7], ids[2, 7] = 9, 9, 9
    conditioning = torch.arange(20) <= torch.tensor([4, 7, 7])[:, None]
    for rows in (slice(0, 3), slice(1, 3)):  # a ragged batch, and one whose blocks end together
        part, kinds = ids[rows], conditioning[rows]
        reference = dense(QWEN2.build(), QWEN2, part, kinds, torch.zeros_like(kinds), 6)
        cache = WandCache(model.config, 6, conditioning_until=9)
        got = torch.cat([feed(model, cache, new) for new in part.split([3] + [1] * 17, 1)], 1)
        assert torch.allclose(got, reference, atol=1e-4)


def test_text_that_streams_in_grows_the_conditioning(model: PreTrainedModel) -> None:
    """By default a later call with several tokens brings conditioning: CosyVoice 2's bistream mode."""
    ids = prompt(24)
    calls = (5, *[1] * 9, 4, *[1] * 6)
    kinds = torch.cat([torch.full((n,), n > 1) for n in calls])[None]
    reference = dense(QWEN2.build(), QWEN2, ids, kinds, torch.zeros_like(kinds), 6)
    cache = WandCache(model.config, 6)
    got = torch.cat([feed(model, cache, part) for part in ids.split(calls, 1)], 1)
    assert torch.allclose(got, reference, atol=1e-4)
    assert cache.layers[0].keys.shape[2] == 5 + 4 + 6


def test_int8_conditioning_is_small_and_close(model: PreTrainedModel) -> None:
    """Its error is that of rounding to 1/127 of each channel's largest entry; beams, growth and copies go along."""
    ids, steps = prompt(40, 2), prompt(20, 2)

    def decode(int8: bool, chunks: tuple[int, ...] = (40,)) -> tuple[WandCache, Tensor]:
        cache = WandCache(model.config, 6, int8=int8)
        parts = [feed(model, cache, part) for part in ids.split(chunks, 1)]
        parts += [feed(model, cache, step) for step in steps[:, :10].split(1, 1)]
        cache.reorder_cache(torch.tensor([1, 0]))
        cache = copy.deepcopy(cache)
        return cache, torch.cat(parts + [feed(model, cache, step) for step in steps[:, 10:].split(1, 1)], 1)

    exact_cache, exact = decode(False)
    for chunks in ((40,), (25, 15)):
        cache, close = decode(True, chunks)
        assert 0 < (close - exact).norm() / exact.norm() < 0.03
        for got, want in zip(cache[0], exact_cache[0], strict=True):  # deeper layers see the errors before them
            step = want[:, :, :40].abs().amax(2, keepdim=True) / 127
            assert ((got - want)[:, :, :40].abs() <= 1.01 * step).all()
        expected = cache_bytes(model.config, conditioning=40, generated=20, window=6, batch=2, int8=True)
        assert cache.nbytes == expected < 0.4 * exact_cache.nbytes


# ------------------------------------------------------------------------------------------- beams, batches, rewinding


@pytest.mark.parametrize("options", [{}, {"static": True}], ids=["dynamic", "static"])
def test_beams_follow_their_index(model: PreTrainedModel, options: dict[str, Any]) -> None:
    """Reordered, expanded or selected, each sequence goes on as if it had been alone."""
    ids = prompt(5, 3)
    steps = prompt(9, 3)
    cache = WandCache(model.config, 6, **options)
    feed(model, cache, ids)
    for n in range(9):
        feed(model, cache, steps[:, n : n + 1])
    follow = prompt(1)

    def alone(row: int) -> Tensor:
        single = WandCache(model.config, 6)
        feed(model, single, ids[row : row + 1])
        for n in range(9):
            feed(model, single, steps[row : row + 1, n : n + 1])
        return feed(model, single, follow)

    expected = torch.cat([alone(row) for row in range(3)])
    for name, argument, rows in (
        ("reorder_cache", torch.tensor([2, 0, 0]), [2, 0, 0]),
        ("batch_repeat_interleave", 2, [0, 0, 1, 1, 2, 2]),
        ("batch_select_indices", torch.tensor([1]), [1]),
    ):
        branch = copy.deepcopy(cache)
        getattr(branch, name)(argument)
        got = feed(model, branch, follow.expand(len(rows), -1))
        assert torch.allclose(got, expected[rows], atol=1e-5), name


def test_kinds_told_for_each_row_follow_their_rows(model: PreTrainedModel) -> None:
    """A mask of what is conditioning, and the token that a turn sampled last."""
    told = torch.tensor([[True] * 3 + [False] * 3 + [True] * 2, [True] * 8])
    cache = WandCache(model.config, 6, conditioning=told)
    feed(model, cache, prompt(4, 2))
    cache.reorder_cache(torch.tensor([1, 0]))
    feed(model, cache, prompt(4, 2))
    assert cache.generated.tolist() == [[0], [3]]
    cache = WandCache(model.config, 6)
    cache.kinds.sampled = 9, torch.tensor([5, 7])
    feed(model, cache, prompt(9, 2))
    cache.batch_repeat_interleave(2)
    assert cache.kinds.sampled[1].tolist() == [5, 5, 7, 7]


def test_a_capacity_of_any_whole_number(model: PreTrainedModel) -> None:
    cache = WandCache(model.config, 6, static=True, capacity=16.0)
    feed(model, cache, prompt(9))
    assert cache.layers[0].keys.shape[2] == 16 + 6


def test_reordering_a_padded_batch_takes_its_padding_along(model: PreTrainedModel) -> None:
    ids = prompt(6, 2)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    cache = WandCache(model.config, 6)
    feed(model, cache, ids, attention_mask=mask, position_ids=positions(mask == 0))
    step = prompt(1).expand(2, -1)
    position = torch.tensor([[4], [6]])
    straight = feed(model, copy.deepcopy(cache), step, position_ids=position)
    cache.reorder_cache(torch.tensor([1, 0]))
    assert torch.allclose(feed(model, cache, step, position_ids=position.flip(0)), straight.flip(0), atol=1e-5)


def test_crop_takes_generated_tokens_back(model: PreTrainedModel) -> None:
    cache = filled(model, 3)
    step = prompt(1)
    expected = feed(model, copy.deepcopy(cache), step)
    feed(model, cache, prompt(1))
    feed(model, cache, prompt(1))
    cache.crop(-2)
    cache.crop(0)
    assert cache.get_seq_length() == 8
    assert torch.equal(feed(model, cache, step), expected)


@pytest.mark.parametrize(
    ("steps", "crop", "message"),
    [
        (8, -1, "pushed out is gone"),
        (3, -4, "3 generated tokens"),
        (3, 2, "minus the number"),
        (0, -1, "0 generated tokens"),
    ],
)
def test_crop_refuses_what_it_cannot_restore(model: PreTrainedModel, steps: int, crop: int, message: str) -> None:
    cache = filled(model, steps)
    with pytest.raises(ValueError, match=message):
        cache.crop(crop)
    assert cache.get_seq_length() == 5 + steps


@pytest.mark.parametrize("options", [{}, {"static": True, "capacity": 9}], ids=["dynamic", "static"])
def test_reset_makes_room_for_another_prompt(model: PreTrainedModel, options: dict[str, Any]) -> None:
    cache = filled(model, 9, **options)
    cache.reset()
    assert cache.get_seq_length() == 0
    ids = prompt(7)
    fresh = WandCache(model.config, 6)
    assert torch.allclose(feed(model, cache, ids), feed(model, fresh, ids), atol=1e-5)
    step = prompt(1)
    assert torch.allclose(feed(model, cache, step), feed(model, fresh, step), atol=1e-5)


def test_deepcopy_is_independent(model: PreTrainedModel) -> None:
    cache = filled(model, 9)
    branch = copy.deepcopy(cache)
    step = prompt(1)
    expected = feed(model, copy.deepcopy(cache), step)
    for _ in range(4):
        feed(model, branch, prompt(1))
    assert torch.equal(feed(model, cache, step), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """The ring in half precision gives what the dense mask gives in half precision."""
    plain, windowed = QWEN2.build().to(dtype), convert(QWEN2.build().to(dtype), 6)
    ids = prompt(25, 2)
    conditioning = (torch.arange(25) < 5).expand(2, -1)
    padding = torch.zeros_like(conditioning)
    mask = dense_masks(conditioning, padding, 6, QWEN2.limits, dtype)
    expected = plain(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    cache = WandCache(windowed.config, 6)
    got = torch.cat([feed(windowed, cache, part) for part in ids.split([5] + [1] * 20, 1)], 1).float()
    assert cache.layers[0].keys.dtype == dtype
    assert (got - expected).norm() / expected.norm() < (2e-2 if dtype == torch.bfloat16 else 3e-3)


def test_to_moves_everything_it_holds(model: PreTrainedModel) -> None:
    cache = filled(model, 9)
    expected = feed(model, copy.deepcopy(cache), step := prompt(1))
    assert cache.to(dtype=torch.float64) is cache
    assert cache.layers[0].keys.dtype == torch.float64
    assert torch.equal(feed(model, cache.to("cpu", torch.float32), step), expected)
    meta = filled(model, 2, batch=2, static=True).to("meta")
    assert {
        t.device.type
        for t in (
            meta.layers[0].keys,
            meta.layout.state.generated,
            meta.layout.state.length,
            *meta.layout.state.conditioning,
        )
    } == {"meta"}


def test_indexing_gives_what_a_layer_holds(model: PreTrainedModel) -> None:
    """CosyVoice reads the cache as a list of (keys, values)."""
    cache = filled(model, 3)
    keys, values = cache[0]
    assert keys.shape == values.shape == (1, 2, 5 + 3, 8)
    assert len(list(cache)) == len(cache) == 3


# ----------------------------------------------------------------------------------------------------- static, compiled


@torch._dynamo.config.patch(error_on_recompile=True)
def test_a_compiled_step_is_compiled_once(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph, no break, no recompilation over 300 steps and a second prompt; the same tokens as the plain cache."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # dynamo cannot trace its checks
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # A function: dynamo would compile each hook on the model itself by the code of jaxtyping's wrapper, once for all.
    compiled = torch.compile(lambda **inputs: model(**inputs), backend="eager", fullgraph=True)
    ids = prompt(5, 2)

    def decode(step: Any, cache: WandCache) -> list[list[int]]:
        token = feed(model, cache, ids)[:, -1:].argmax(-1)
        out = [token]
        for _ in range(300):
            out.append(step(input_ids=out[-1], past_key_values=cache, use_cache=True).logits.argmax(-1))
        return torch.cat(out, 1).tolist()

    expected = decode(model, WandCache(model.config, 6))
    cache = WandCache(model.config, 6, static=True)
    assert decode(compiled, cache) == expected
    cache.reset()
    assert decode(compiled, cache) == expected
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.gpu
@pytest.mark.parametrize("shared", [1, 3])
def test_a_cuda_graph_replays_a_step(shared: int) -> None:
    """Captured once, replayed 40 times: the tokens of the plain cache."""
    model = convert(QWEN2.build().cuda(), 6)
    ids = prompt(5).expand(3, -1).cuda()

    def start(cache: WandCache) -> Tensor:
        feed(model, cache, ids)
        return torch.tensor([[3], [5], [7]], device="cuda")

    plain = WandCache(model.config, 6)
    expected = [start(plain)]
    for _ in range(40):
        expected.append(feed(model, plain, expected[-1]).argmax(-1))

    cache = WandCache(model.config, 6, static=True, shared=shared)
    token = start(cache)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for warm in [copy.deepcopy(cache) for _ in range(3)]:
            feed(model, warm, token)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        token.copy_(feed(model, cache, token).argmax(-1))
    got = [token.clone()]
    for _ in range(40):
        graph.replay()
        got.append(token.clone())
    assert torch.cat(got, 1).tolist() == torch.cat(expected, 1).tolist()


def test_static_bytes_and_addresses_never_change(model: PreTrainedModel) -> None:
    cache = WandCache(model.config, 6, static=True, capacity=9)
    feed(model, cache, prompt(5))

    def addresses() -> list[int]:
        tensors = (
            cache.layers[1].keys,
            cache.layers[1].values,
            cache.layout.state.generated,
            cache.layout.state.length,
        )
        return [tensor.data_ptr() for tensor in tensors]

    before = addresses()
    for _ in range(8):
        feed(model, cache, prompt(1))
    assert addresses() == before
    assert cache.nbytes == 2 * 3 * 2 * 8 * (9 + 6) * 4


# ---------------------------------------------------------------------------------------------------------- refusals


def test_static_capacity_is_a_limit(model: PreTrainedModel) -> None:
    cache = WandCache(model.config, 6, static=True, capacity=4)
    with pytest.raises(ValueError, match="5 conditioning tokens do not fit capacity=4"):
        feed(model, cache, prompt(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "at least 1"),
        ({"conditioning": 3, "conditioning_until": 9}, "not both"),
        ({"capacity": 9}, "static=True"),
        ({"int8": True, "static": True}, "not static"),
        ({"static": True, "capacity": 0}, "capacity, in tokens, is a whole number, at least 1; got 0"),
        ({"static": True, "capacity": 16.5}, "got 16.5"),
        ({"conditioning": -1}, "at least 0; got -1"),
        ({"conditioning_until": 3.5}, "conditioning_until, a token id, is a whole number, at least 0; got 3.5"),
        ({"conditioning_until": True}, "got True"),
        ({"shared": 0}, "at least 1; got 0"),
    ],
)
def test_contradictory_options_are_refused(model: PreTrainedModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WandCache(model.config, **options)


def test_a_used_cache_is_refused_for_another_prompt(model: PreTrainedModel) -> None:
    cache = filled(model, 9)
    for options in (
        {"ids": prompt(6), "attention_mask": torch.ones(1, 6, dtype=torch.long)},
        {"ids": prompt(6), "position_ids": torch.arange(6)[None]},
        {"ids": prompt(6, 2)},
        {"ids": prompt(1, 2)},
        {"ids": prompt(0)},
    ):
        with pytest.raises(ValueError, match=r"cache\.reset\(\)"):
            feed(model, copy.deepcopy(cache), options.pop("ids"), **options)
    with pytest.raises(ValueError, match=r"cache\.reset\(\)"):
        model.generate(prompt(8), past_key_values=cache, max_new_tokens=3)


@pytest.mark.parametrize("steps", [3, 9])
def test_a_pass_that_was_interrupted(model: PreTrainedModel, steps: int) -> None:
    """A step can be made again; a chunk would still see what the step has overwritten in some layers."""
    cache = filled(model, steps)
    twin = copy.deepcopy(cache)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    def interrupt(cache: WandCache, new: Tensor) -> None:
        handle = model.model.layers[1].register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            feed(model, cache, new)
        handle.remove()

    interrupt(cache, step := prompt(1))
    with pytest.raises(ValueError, match="an earlier pass over this cache was interrupted"):
        feed(model, cache, prompt(3))
    assert torch.equal(feed(model, cache, step), feed(model, twin, step))
    assert torch.equal(feed(model, cache, new := prompt(3)), feed(model, twin, new))
    interrupt(cache, prompt(3))
    with pytest.raises(ValueError, match="an earlier pass over this cache was interrupted"):
        feed(model, cache, step)


@pytest.mark.parametrize("options", [{}, {"static": True}, {"int8": True}, {"shared": 2}], ids=str)
@pytest.mark.parametrize("held", [0, 5])
def test_reset_after_a_pass_that_was_interrupted(model: PreTrainedModel, options: dict[str, Any], held: int) -> None:
    """The cure that the error names: the cache is as good as a new one."""
    cache, ids = WandCache(model.config, 6, **options), prompt(7).expand(2, -1)
    if held:
        feed(model, cache, prompt(held).expand(2, -1))

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        feed(model, cache, prompt(3).expand(2, -1))
    handle.remove()
    with pytest.raises(ValueError, match=r"interrupted: call cache\.reset\(\)"):
        feed(model, cache, ids)
    cache.reset()
    fresh = WandCache(model.config, 6, **options)
    for new in (ids, *ids[:, :3].split(1, 1)):
        assert torch.equal(feed(model, cache, new), feed(model, fresh, new))


def test_layers_lie_on_other_devices_than_the_plan() -> None:
    """With a device_map a layer gets its keys on its own device, and the plan was made on the first one's."""
    with FakeTensorMode():
        layer, new = WandLayer(CacheLayout(6, {None})), torch.empty(2, 2, 7, 8, device="cuda:1")
        source = torch.zeros(2, 12, dtype=torch.long, device="cuda:0")
        for read, kept in ((0, None), (7, source)):
            state = LayoutState(batch=2)
            layer.apply(Rebuild(read, kept, 14, 7, pinned_stay=False, fill_value=0.0, state=state), new, new)
        layer.apply(ScatterWrite(source[:, :1], source[:, :1], 14), new[:, :, :1], new[:, :, :1])
        assert layer.keys.device == layer.values.device == new.device


def test_conditioning_masks_that_do_not_fit_are_refused(model: PreTrainedModel) -> None:
    for wrong in (torch.ones(1, 4, dtype=torch.bool), torch.ones(3, 9, dtype=torch.bool)):
        with pytest.raises(ValueError, match="one flag for each token"):
            feed(model, WandCache(model.config, 6, conditioning=wrong), prompt(5, 2))
    with pytest.raises(ValueError, match="one flag for each token"):
        feed(model, WandCache(model.config, 6), prompt(5, 2), conditioning=torch.ones(2, 4, dtype=torch.bool))


def test_embeddings_cannot_say_where_conditioning_ends(model: PreTrainedModel) -> None:
    cache = WandCache(model.config, 6, conditioning_until=9)
    with pytest.raises(ValueError, match="needs input_ids"):
        model(inputs_embeds=torch.zeros(1, 3, 32), past_key_values=cache, use_cache=True)


def test_a_model_without_window_is_refused() -> None:
    plain = restore(convert(QWEN2.build(), 6))
    with pytest.raises(RuntimeError, match=r"wandlib\.convert"):
        feed(plain, WandCache(plain.config, 6), prompt(5))


def test_recording_the_past_is_refused(model: PreTrainedModel) -> None:
    cache = WandCache(model.config, 6)
    assert not cache.is_croppable
    with pytest.raises(ValueError, match="assisted decoding"):
        cache.activate_past_recording()
