"""Sequences that share a prompt: what each sees is what it would see with a cache of its own, in fewer bytes."""

from __future__ import annotations

import copy
from typing import Any

import jaxtyping
import pytest
import torch
from feeding import feed
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import dense_masks, positions, steady
from tiny_models import LANGUAGE_MODELS, SPEECH_DECODERS, VOCABULARY, Tiny
from torch import Tensor
from transformers import BartConfig, BartForCausalLM, PreTrainedModel

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import convert, restore
from wandlib.attention.models import base_decoder, cache_inputs
from wandlib.profiling.estimate import cache_bytes

pytestmark = pytest.mark.usefixtures("no_grad")

WINDOW, STEPS, BEAMS = 6, 20, 3
QWEN2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "qwen2")
GEMMA3 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "gemma3")


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return convert(QWEN2.build(), WINDOW)


def prompts(padded: bool = True, batch: int = 2) -> dict[str, Tensor]:
    ids = torch.randint(1, VOCABULARY, (batch, 7))
    padding = (torch.arange(7) < torch.tensor([0, 3, 1])[:batch, None]) & padded
    return {"input_ids": ids.masked_fill(padding, 0), "attention_mask": (~padding).long()}


def beams(model: PreTrainedModel, cache: WandCache, inputs: dict[str, Tensor], **options: Any) -> Any:
    usual = {"num_beams": BEAMS, "num_return_sequences": BEAMS, "do_sample": False, "max_new_tokens": STEPS}
    usual |= {"length_penalty": 0.0, "output_scores": True, "output_logits": True, "return_dict_in_generate": True}
    return model.generate(**inputs, past_key_values=cache, **usual | options)


def random_ids(rows: int, length: int) -> Tensor:
    return torch.randint(1, VOCABULARY, (rows, length))


# ------------------------------------------------------------------------------------------------- the same sequences


@pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
def test_beam_search_finds_the_same(tiny: Tiny, padded: bool) -> None:
    """Stock `generate`, two prompts, a reorder at every step; bytes to the byte those of the accounting."""
    model = convert(tiny.build(), WINDOW)
    inputs = prompts(padded)
    cache = WandCache(model.config, WINDOW, shared=BEAMS)
    got = beams(model, cache, inputs)
    expected = beams(model, WandCache(model.config, WINDOW), inputs)
    assert torch.equal(got.sequences, expected.sequences)
    assert torch.allclose(got.sequences_scores, expected.sequences_scores, atol=1e-4)
    assert torch.allclose(torch.stack(got.logits), torch.stack(expected.logits), atol=1e-4)
    assert cache.batch_size == 2 * BEAMS
    sizes = {"conditioning": 7, "generated": STEPS - 1, "window": WINDOW, "batch": 2, "beams": BEAMS}
    assert cache.nbytes == cache_bytes(model.config, **sizes, shared=True)
    assert expected.past_key_values.nbytes == cache_bytes(model.config, **sizes)


@pytest.mark.parametrize("tiny", [QWEN2, GEMMA3], ids=str)
@pytest.mark.parametrize("options", [{"static": True}, {"int8": True}], ids=["static", "int8"])
def test_beam_search_with_other_kinds_of_cache(tiny: Tiny, options: dict[str, Any]) -> None:
    """For a static cache `generate` prepares the masks itself, one for each kind of layer."""
    model = convert(tiny.build(), WINDOW)
    inputs = prompts()
    alone, shared = (beams(model, WandCache(model.config, WINDOW, shared=n, **options), inputs) for n in (1, BEAMS))
    assert torch.equal(shared.sequences, alone.sequences)
    assert torch.allclose(shared.sequences_scores, alone.sequences_scores, atol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_beams_score_what_brute_force_scores(attention: str) -> None:
    """A beam's score is the sum of the log-probabilities of its tokens under the triple-loop mask; padded batch."""
    plain = QWEN2.build()
    model = convert(copy.deepcopy(plain), WINDOW)
    model.set_attn_implementation(attention)
    inputs = prompts()
    out = beams(model, WandCache(model.config, WINDOW, shared=BEAMS), inputs)
    padding = torch.nn.functional.pad((inputs["attention_mask"] == 0).repeat_interleave(BEAMS, 0), (0, STEPS))
    conditioning = (torch.arange(7 + STEPS) < 7).expand(2 * BEAMS, -1)
    mask = dense_masks(conditioning, padding, WINDOW, QWEN2.limits)
    logits = plain(out.sequences, attention_mask=mask, position_ids=positions(padding), use_cache=False).logits
    chosen = logits[:, 6:-1].log_softmax(-1).gather(2, out.sequences[:, 7:, None]).sum((1, 2))
    assert torch.allclose(out.sequences_scores, chosen, atol=1e-4)


def test_samples_draw_from_the_same_logits(model: PreTrainedModel) -> None:
    ids = random_ids(2, 7)
    out = beams(
        model, WandCache(model.config, WINDOW, shared=BEAMS), {"input_ids": ids}, num_beams=1, do_sample=True, top_k=20
    )
    conditioning = (torch.arange(7 + STEPS) < 7).expand(2 * BEAMS, -1)
    mask = dense_masks(conditioning, torch.zeros_like(conditioning), WINDOW, QWEN2.limits)
    logits = QWEN2.build()(out.sequences, attention_mask=mask, use_cache=False).logits
    assert torch.allclose(torch.stack(out.logits, 1), logits[:, 6:-1], atol=1e-4)
    assert len({tuple(row) for row in out.sequences.tolist()}) == 2 * BEAMS


@pytest.mark.parametrize("tiny", SPEECH_DECODERS, ids=str)
def test_speech_decoders_over_embeddings(tiny: Tiny) -> None:
    model = convert(tiny.build(), WINDOW)
    decoder = base_decoder(model)
    prompt, steps = torch.randn(2, 7, 32).repeat_interleave(BEAMS, 0), torch.randn(2 * BEAMS, STEPS, 32)
    caches = [WandCache(model.config, WINDOW, shared=shared) for shared in (1, BEAMS)]
    for part in (prompt, *steps.split(1, 1)):
        alone, together = (
            decoder(inputs_embeds=part, use_cache=True, **cache_inputs(decoder, cache)).last_hidden_state
            for cache in caches
        )
        assert together.shape == alone.shape
        assert torch.allclose(together, alone, atol=1e-4)


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    """Sizes, the lengths of the prefill's chunks, left padding, and an order of the beams after every step."""
    batch, sequences = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    chunks = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    padding = draw(st.lists(st.integers(0, chunks[0] - 1), min_size=batch, max_size=batch))
    row = st.lists(st.integers(0, sequences - 1), min_size=batch * sequences, max_size=batch * sequences)
    orders = draw(st.lists(row, min_size=1, max_size=12))
    first = torch.arange(batch).repeat_interleave(sequences) * sequences
    return {
        "sequences": sequences,
        "chunks": chunks,
        "padding": torch.arange(sum(chunks)) < torch.tensor(padding)[:, None],
        "orders": [torch.tensor(order) + first for order in orders],
        "window": draw(st.integers(1, 5)),
    }


@pytest.mark.parametrize("options", [{}, {"static": True, "capacity": 16}, {"int8": True}], ids=["", "static", "int8"])
@pytest.mark.parametrize("tiny", [QWEN2, GEMMA3], ids=str)
def test_any_search_agrees_with_caches_apart(tiny: Tiny, options: dict[str, Any]) -> None:
    windowed = convert(tiny.build(), WINDOW)

    @settings(steady, max_examples=15)
    @given(searches())
    def check(case: dict[str, Any]) -> None:
        sequences, padding = case["sequences"], case["padding"]
        batch, length = padding.shape
        ids = (torch.arange(batch * length).view(batch, length) * 31 % (VOCABULARY - 1) + 1).repeat_interleave(
            sequences, 0
        )
        rows = padding.repeat_interleave(sequences, 0)
        position = positions(rows)
        made: dict[str, Any] = {"conditioning": length} | options
        caches = [WandCache(windowed.config, case["window"], shared=n, **made) for n in (1, sequences)]
        got: list[list[Tensor]] = [[], []]
        for cache, logits in zip(caches, got, strict=True):
            start = 0
            for chunk in case["chunks"]:
                new = slice(start, start := start + chunk)
                mask = (~rows[:, :start]).long()
                out = feed(windowed, cache, ids[:, new], attention_mask=mask, position_ids=position[:, new])
                logits.append(out[~rows[:, new]])
            for step, order in enumerate(case["orders"]):
                token = (torch.arange(len(ids)) * 17 + step * 5)[:, None] % (VOCABULARY - 1) + 1
                logits.append(feed(windowed, cache, token, position_ids=position[:, -1:] + 1 + step))
                cache.reorder_cache(order)
        for apart, together in zip(*got, strict=True):
            assert torch.allclose(together, apart, atol=1e-4)

    check()


def test_what_else_the_decoder_gives_has_a_row_for_each_sequence() -> None:
    model = convert(QWEN2.build(), WINDOW)
    model.set_attn_implementation("eager")
    wanted = {"output_hidden_states": True, "output_attentions": True}
    caches = [WandCache(model.config, WINDOW, shared=shared) for shared in (1, BEAMS)]
    for ids in (random_ids(2, 7).repeat_interleave(BEAMS, 0), random_ids(2 * BEAMS, 1)):
        alone, together = (model(ids, use_cache=True, **cache_inputs(model, cache), **wanted) for cache in caches)
        assert torch.allclose(torch.stack(together.hidden_states), torch.stack(alone.hidden_states), atol=1e-5)
        for weights, expected in zip(together.attentions, alone.attentions, strict=True):
            assert weights.shape[:3] == expected.shape[:3]
            assert torch.allclose(weights.sum(-1), torch.ones(()))
            assert torch.allclose(weights[..., :7], expected[..., :7], atol=1e-5)


# ----------------------------------------------------------------------------------------------------- stored once


def test_the_prompt_is_computed_once(model: PreTrainedModel) -> None:
    seen = []
    handle = base_decoder(model).embed_tokens.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    cache = WandCache(model.config, WINDOW, shared=BEAMS)
    beams(model, cache, prompts(), max_new_tokens=3)
    handle.remove()
    assert [tuple(shape) for shape in seen] == [(2, 7, 32), (2, BEAMS, 32), (2, BEAMS, 32)]


def test_a_reorder_moves_no_entry(model: PreTrainedModel) -> None:
    cache = WandCache(model.config, WINDOW, shared=BEAMS)
    feed(model, cache, random_ids(2, 7).repeat_interleave(BEAMS, 0))
    for _ in range(4):
        feed(model, cache, random_ids(2 * BEAMS, 1))
    before = [(layer.keys.data_ptr(), layer.keys.clone()) for layer in cache.layers]
    cache.reorder_cache(torch.tensor([2, 2, 0, 4, 3, 5]))
    for layer, (address, keys) in zip(cache.layers, before, strict=True):
        assert layer.keys.data_ptr() == address
        assert torch.equal(layer.keys.nan_to_num(), keys.nan_to_num())


@pytest.mark.parametrize("steps", [0, 1, 5, 6, 20])
def test_unwritten_slots_hold_nan_and_nothing_reads_them(model: PreTrainedModel, steps: int) -> None:
    cache = WandCache(model.config, WINDOW, shared=BEAMS)
    feed(model, cache, random_ids(1, 7).expand(BEAMS, -1))
    for _ in range(steps):
        assert feed(model, cache, random_ids(BEAMS, 1)).isfinite().all()
    used = 7 + BEAMS * min(steps, WINDOW)
    for layer in cache.layers:
        assert layer.keys.shape[2] == 7 + BEAMS * WINDOW
        assert layer.keys[:, :, :used].isfinite().all()
        assert layer.keys[:, :, used:].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_bytes(dtype: torch.dtype) -> None:
    model = convert(QWEN2.build().to(dtype), WINDOW)
    cache = WandCache(model.config, WINDOW, shared=BEAMS, int8=True)
    beams(model, cache, prompts())
    sizes = {"conditioning": 7, "generated": STEPS - 1, "window": WINDOW, "batch": 2, "beams": BEAMS, "dtype": dtype}
    assert cache.nbytes == cache_bytes(model.config, **sizes, shared=True, int8=True)


# ------------------------------------------------------------------------------------------- what a cache can do


def pair(model: PreTrainedModel, steps: int, **options: Any) -> tuple[WandCache, WandCache, Tensor]:
    """Two caches that hold the same, one of them with the prompt shared, and a token for each sequence."""
    ids, tokens = random_ids(2, 7).repeat_interleave(BEAMS, 0), random_ids(2 * BEAMS, steps + 1)
    caches = [WandCache(model.config, WINDOW, shared=shared, **options) for shared in (1, BEAMS)]
    for cache in caches:
        feed(model, cache, ids)
        for step in range(steps):
            feed(model, cache, tokens[:, step : step + 1])
            cache.reorder_cache(torch.tensor([1, 2, 0, 3, 5, 3]))
    return *caches, tokens[:, -1:]


def test_crop_takes_each_sequence_back_on_its_own_path(model: PreTrainedModel) -> None:
    alone, shared, token = pair(model, 4)
    for cache in (alone, shared):
        cache.crop(-2)
    assert torch.allclose(feed(model, shared, token), feed(model, alone, token), atol=1e-5)


def test_copies_are_independent_and_moving_keeps_everything(model: PreTrainedModel) -> None:
    alone, shared, token = pair(model, 9)
    expected = feed(model, alone, token)
    branch = copy.deepcopy(shared)
    branch.reorder_cache(torch.tensor([0, 0, 0, 3, 3, 3]))
    feed(model, branch, token)
    shared.to(dtype=torch.float64).to("cpu", torch.float32)
    assert torch.allclose(feed(model, shared, token), expected, atol=1e-5)
    assert shared.to("meta").layout.state.ownership.device.type == "meta"


@pytest.mark.parametrize("options", [{}, {"static": True, "capacity": 9}], ids=["dynamic", "static"])
def test_reset_makes_room_for_another_prompt(model: PreTrainedModel, options: dict[str, Any]) -> None:
    _, cache, _ = pair(model, 9, **options)
    cache.reset()
    ids, token = random_ids(1, 5).expand(BEAMS, -1), random_ids(BEAMS, 1)
    fresh = WandCache(model.config, WINDOW)
    for new in (ids, token):
        assert torch.allclose(feed(model, cache, new), feed(model, fresh, new), atol=1e-5)


@torch._dynamo.config.patch(error_on_recompile=True)
def test_a_compiled_step_is_compiled_once(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an order of the beams, and no recompilation, at each of 40 steps."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # dynamo cannot trace its checks
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # A function: dynamo would compile each hook on the model itself by the code of jaxtyping's wrapper, once for all.
    compiled = torch.compile(lambda **inputs: model(**inputs), backend="eager", fullgraph=True)
    ids, order = random_ids(2, 7).repeat_interleave(BEAMS, 0), torch.tensor([2, 0, 0, 4, 5, 3])

    def decode(step: Any, cache: WandCache) -> list[list[int]]:
        out = [feed(model, cache, ids)[:, -1].topk(BEAMS).indices[:, :1] + torch.arange(2 * BEAMS)[:, None]]
        for _ in range(40):
            out.append(step(input_ids=out[-1], use_cache=True, **cache_inputs(model, cache)).logits.argmax(-1))
            cache.reorder_cache(order)
        return torch.cat(out, 1).tolist()

    expected = decode(model, WandCache(model.config, WINDOW))
    assert decode(compiled, WandCache(model.config, WINDOW, static=True, shared=BEAMS)) == expected
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shared": 0}, "at least 1; got 0"),
        ({"shared": 3, "conditioning_until": 9}, "differs from sequence to sequence"),
    ],
)
def test_contradictory_options_are_refused(model: PreTrainedModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WandCache(model.config, **options)


def test_prompts_that_are_not_shared_are_refused(model: PreTrainedModel) -> None:
    same = {name: value.repeat_interleave(BEAMS, 0) for name, value in prompts(batch=1).items()}
    for name in same:
        other = same | {name: same[name].clone()}
        other[name][1, 0] = 0
        with pytest.raises(ValueError, match=f"their {name} differ.*leave out shared"):
            model(**other, past_key_values=WandCache(model.config, WINDOW, shared=BEAMS), use_cache=True)


@pytest.mark.parametrize(("num_beams", "shared"), [(1, 3), (2, 3), (4, 3)])
def test_another_number_of_sequences_is_refused(model: PreTrainedModel, num_beams: int, shared: int) -> None:
    with pytest.raises(ValueError, match=f"among {shared} sequences, and was given {num_beams}.*shared=num_beams"):
        beams(
            model,
            WandCache(model.config, WINDOW, shared=shared),
            prompts(batch=1),
            num_beams=num_beams,
            num_return_sequences=1,
        )


def test_what_is_not_common_is_refused(model: PreTrainedModel) -> None:
    """Generated tokens in the prefill, conditioning after them: neither is the same for all."""
    ids = random_ids(1, 7).expand(BEAMS, -1)
    with pytest.raises(ValueError, match="generated tokens"):
        feed(model, WandCache(model.config, WINDOW, shared=BEAMS, conditioning=5), ids)
    cache = WandCache(model.config, WINDOW, shared=BEAMS)
    feed(model, cache, ids)
    feed(model, cache, random_ids(BEAMS, 1))
    with pytest.raises(ValueError, match="conditioning after them"):
        feed(model, cache, random_ids(1, 4).expand(BEAMS, -1))
    assert feed(model, cache, random_ids(BEAMS, 1)).isfinite().all()


def test_orders_across_prompts_and_other_changes_are_refused(model: PreTrainedModel) -> None:
    _, cache, _ = pair(model, 3)
    for order in (torch.tensor([3, 1, 2, 3, 4, 5]), torch.tensor([0, 1, 2])):
        with pytest.raises(ValueError, match="share its prompt"):
            cache.reorder_cache(order)
    for change in (lambda: cache.batch_repeat_interleave(2), lambda: cache.batch_select_indices(torch.tensor([0]))):
        with pytest.raises(ValueError, match="only reordered"):
            change()
    with pytest.raises(ValueError, match=r"holds 6 sequence\(s\) and was given 3.*reset"):
        feed(model, cache, random_ids(BEAMS, 1))


def test_flash_attention_is_refused(model: PreTrainedModel) -> None:
    cache = WandCache(model.config, WINDOW, shared=BEAMS)
    feed(model, cache, random_ids(1, 7).expand(BEAMS, -1))
    twin = copy.deepcopy(model)
    twin.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="shared prompts"):
        feed(twin, cache, random_ids(BEAMS, 1))
    restore(twin)


def test_a_decoder_that_takes_no_positions_is_refused() -> None:
    """It would count the sequences of a prompt as one, each token a place further."""
    sizes: dict[str, Any] = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64}
    config = BartConfig(vocab_size=VOCABULARY, is_decoder=True, is_encoder_decoder=False, pad_token_id=0, **sizes)
    model = convert(BartForCausalLM(config).eval(), WINDOW)
    with pytest.raises(ValueError, match="BartDecoder takes no position_ids"):
        feed(model, WandCache(model.config, shared=2), random_ids(1, 7).expand(2, -1))
