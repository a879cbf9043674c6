"""Grouped attention is `sdpa` without copies; a compiled step decodes what the plain one does, compiled once."""

from __future__ import annotations

from typing import Any

import jaxtyping
import pytest
import torch
from tiny_models import LANGUAGE_MODELS, VOCABULARY, Tiny
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel, StaticCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from wandlib import WandCache, compile_step, convert, full_attention
from wandlib.attention.grouped_attention import GROUPED, grouped_sdpa
from wandlib.attention.models import cache_inputs

WINDOW, STEPS = 6, 20
QWEN2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "qwen2")
SHARING_KEYS = [tiny for tiny in LANGUAGE_MODELS if tiny.name != "gpt2"]


@pytest.fixture
def model() -> PreTrainedModel:
    return convert(QWEN2.build(), WINDOW)


def decode(model: Any, step: Any, cache: Cache | None, ids: Tensor, steps: int = STEPS) -> list[list[int]]:
    """Greedy, the prompt by ``model`` and every further token by ``step``."""
    token = model(input_ids=ids, **cache_inputs(model, cache), use_cache=True).logits[:, -1:].argmax(-1)
    out = [token]
    for _ in range(steps):
        out.append(step(input_ids=out[-1], **cache_inputs(model, cache), use_cache=True).logits[:, -1:].argmax(-1))
    return torch.cat(out, 1).tolist()


def prompt(length: int, batch: int = 2) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, length))


# ---------------------------------------------------------------------------------------------------------- attention


class Heads(nn.Module):
    """What an attention function asks its layer for."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


@pytest.mark.parametrize("heads", [(6, 2), (4, 1), (4, 4)], ids=str)
@pytest.mark.parametrize("length", [1, 3, 16, 20])  # 16: as many as channels
@pytest.mark.parametrize("kind", ["bool", "additive", "per head", "none"])
def test_grouped_attention_is_sdpa(heads: tuple[int, int], length: int, kind: str) -> None:
    query = torch.randn(2, heads[0], length, 16, requires_grad=True)
    key, value = (torch.randn(2, heads[1], 23, 16, requires_grad=True) for _ in range(2))
    seen = torch.rand(2, heads[0] if kind == "per head" else 1, length, 23) < 0.6
    seen[..., 0] = True  # every query sees something
    mask = {"bool": seen, "none": None}.get(kind, torch.where(seen, 0.0, torch.finfo(torch.float32).min))
    inputs = (Heads(heads[0] // heads[1]), query, key, value, mask)
    got, _ = grouped_sdpa(*inputs, scaling=0.3)
    expected, _ = sdpa_attention_forward(*inputs, scaling=0.3)
    assert got.shape == (2, length, heads[0], 16)
    assert torch.allclose(got, expected, atol=1e-6)
    upstream = torch.randn_like(got)
    for ours, theirs in zip(
        torch.autograd.grad(got, (query, key, value), upstream),
        torch.autograd.grad(expected, (query, key, value), upstream),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_grouped_attention_repeats_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled, `sdpa` makes a copy of the keys for every head; grouped attention hands on those that it was given."""
    seen: list[int] = []
    plain = nn.functional.scaled_dot_product_attention

    def spy(query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(key.data_ptr())
        return plain(query, key, *args, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    query, key = torch.randn(1, 6, 3, 16), torch.randn(1, 2, 23, 16)
    mask = torch.zeros(1, 1, 3, 23)
    grouped_sdpa(Heads(3), query, key, key, mask)
    sdpa_attention_forward(Heads(3), query, key, key, mask)
    assert [pointer == key.data_ptr() for pointer in seen] == [True, False]


@pytest.mark.parametrize("tiny", SHARING_KEYS, ids=str)
@pytest.mark.parametrize("options", [{}, {"static": True}, {"shared": 2}], ids=["plain", "static", "shared"])
@torch.no_grad()
def test_models_decode_the_same(tiny: Tiny, options: dict[str, Any]) -> None:
    model = convert(tiny.build(), WINDOW)
    ids = prompt(7, 1).expand(2, -1)
    expected = decode(model, model, WandCache(model.config, WINDOW), ids)
    model.set_attn_implementation(GROUPED)
    assert decode(model, model, WandCache(model.config, WINDOW, **options), ids) == expected


@torch.no_grad()
def test_padding_stays_hidden(model: PreTrainedModel) -> None:
    ids = prompt(7)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    options = {"attention_mask": mask, "max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, **options)  # type: ignore[operator]
    with full_attention(model):
        whole = model.generate(ids, **options)  # type: ignore[operator]
    model.set_attn_implementation(GROUPED)
    assert torch.equal(model.generate(ids, **options), expected)  # type: ignore[operator]
    with full_attention(model):
        assert torch.equal(model.generate(ids, **options), whole)  # type: ignore[operator]
    assert not torch.equal(whole, expected)


# ----------------------------------------------------------------------------------------------------------- compiled


@pytest.fixture
def dynamo(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The counters of a dynamo that knows nothing yet."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # dynamo cannot trace its checks
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return torch._dynamo.utils.counters


@torch.no_grad()
def test_a_step_is_compiled_once(model: PreTrainedModel, dynamo: Any) -> None:
    """No recompilation over 300 steps and a second prompt; the same tokens as the plain cache."""
    ids = prompt(5)
    expected = decode(model, model, WandCache(model.config, WINDOW), ids, steps=300)
    step = compile_step(model, backend="eager")
    cache = WandCache(model.config, WINDOW, static=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert decode(model, step, cache, ids, steps=300) == expected
        cache.reset()
        assert decode(model, step, cache, ids, steps=300) == expected
    assert not dynamo["graph_break"]


@torch.no_grad()
def test_another_cache_is_another_graph(model: PreTrainedModel, dynamo: Any) -> None:
    """As many slots, but more of them in the window: its shapes give it away."""
    step = compile_step(model, backend="eager")
    for window, length in ((6, 9), (9, 6), (6, 9)):
        ids = prompt(length)
        expected = decode(model, model, WandCache(model.config, window), ids)
        assert decode(model, step, WandCache(model.config, window, static=True), ids) == expected
    shared = {"window": 3, "shared": 2}  # 9 + 2 * 3 slots, again
    ids = prompt(9, 1).expand(2, -1)
    expected = decode(model, model, WandCache(model.config, 3), ids)
    assert decode(model, step, WandCache(model.config, static=True, **shared), ids) == expected


@torch.no_grad()
def test_other_arguments_are_another_graph(model: PreTrainedModel, dynamo: Any) -> None:
    step, cache = compile_step(model, backend="eager"), WandCache(model.config, WINDOW, static=True)
    decode(model, step, cache, prompt(5))
    token = torch.ones(2, 1, dtype=torch.long)
    assert isinstance(step(input_ids=token, past_key_values=cache, use_cache=True, return_dict=False), tuple)


@torch.no_grad()
def test_what_is_no_step_is_refused(model: PreTrainedModel, dynamo: Any) -> None:
    """A prompt, one without a prompt, conditioning that goes on."""
    step, cache = compile_step(model, backend="eager"), WandCache(model.config, WINDOW, static=True)
    token = torch.ones(2, 1, dtype=torch.long)
    for inputs in ({"input_ids": prompt(5)}, {"input_ids": token}):
        with pytest.raises(ValueError, match="a compiled step takes one generated token of each sequence"):
            step(**inputs, past_key_values=cache, use_cache=True)
    cache = WandCache(model.config, WINDOW, static=True, conditioning=7)
    model(input_ids=prompt(5), past_key_values=cache, use_cache=True)
    with pytest.raises(ValueError, match="conditioning to the model itself"):
        step(input_ids=token, past_key_values=cache, use_cache=True)


@torch.no_grad()
def test_another_model_is_another_graph(dynamo: Any) -> None:
    """The same shapes, another activation function."""
    ids = prompt(5)
    for activation in (nn.SiLU(), nn.Tanh()):
        model: Any = convert(QWEN2.build(), WINDOW)
        for layer in model.model.layers:
            layer.mlp.act_fn = activation
        expected = decode(model, model, WandCache(model.config, WINDOW), ids)
        step = compile_step(model, backend="eager")
        assert decode(model, step, WandCache(model.config, WINDOW, static=True), ids) == expected


@torch.no_grad()
def test_full_attention_is_not_compiled(model: PreTrainedModel, dynamo: Any) -> None:
    step, ids = compile_step(model, backend="eager"), prompt(5)
    windowed = decode(model, step, WandCache(model.config, WINDOW, static=True), ids)
    with full_attention(model):
        expected = decode(model, model, DynamicCache(config=model.config), ids)
        assert decode(model, step, DynamicCache(config=model.config), ids) == expected != windowed
        with pytest.raises(RuntimeError, match="pass a DynamicCache instead"):
            step(input_ids=ids[:, :1], past_key_values=WandCache(model.config, WINDOW, static=True), use_cache=True)


@torch.no_grad()
def test_what_cannot_be_one_graph_is_an_error(model: Any, dynamo: Any) -> None:
    """Never a graph for each layer: nothing would tell those from each other."""
    ids, step = prompt(5), compile_step(model, backend="eager")
    model.model.layers[0].mlp.register_forward_hook(lambda *args: torch._dynamo.graph_break())
    with pytest.raises(torch._dynamo.exc.Unsupported):
        decode(model, step, WandCache(model.config, WINDOW, static=True), ids)


@torch.no_grad()
def test_a_hook_on_a_layer_stays_in_force(model: Any, dynamo: Any) -> None:
    model.model.layers[0].mlp.register_forward_hook(lambda module, args, output: output * output.abs().max())
    ids = prompt(5)
    expected = decode(model, model, WandCache(model.config, WINDOW), ids)
    step = compile_step(model, backend="eager")
    assert decode(model, step, WandCache(model.config, WINDOW, static=True), ids) == expected


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
@torch.no_grad()
def test_caches_that_count_in_python_are_refused(name: str, dynamo: Any) -> None:
    model = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == name).build()
    step, token = compile_step(model, backend="eager"), torch.ones(2, 1, dtype=torch.long)
    sliding = StaticCache(config=model.config, max_cache_len=30)
    assert any(sliding.is_sliding)
    for cache in (sliding, DynamicCache(config=model.config), WandCache(model.config, WINDOW), None):
        with pytest.raises(ValueError, match=f"needs a cache of fixed shapes, got {type(cache).__name__}"):
            step(input_ids=token, past_key_values=cache, use_cache=True)


@torch.no_grad()
def test_an_unconverted_model_and_a_static_cache(dynamo: Any) -> None:
    model, ids = QWEN2.build(), prompt(5)
    expected = decode(model, model, DynamicCache(config=model.config), ids)
    cache = StaticCache(config=model.config, max_cache_len=5 + STEPS)
    assert decode(model, compile_step(model, backend="eager"), cache, ids) == expected


def test_what_is_no_decoder_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear is not a transformers model"):
        compile_step(nn.Linear(2, 2))


@pytest.mark.slow
@torch.no_grad()
def test_inductor_decodes_the_same(model: PreTrainedModel, dynamo: Any) -> None:
    """With the C++ compiler that it needs."""
    ids = prompt(5)
    expected = decode(model, model, WandCache(model.config, WINDOW), ids)
    assert decode(model, compile_step(model), WandCache(model.config, WINDOW, static=True), ids) == expected
