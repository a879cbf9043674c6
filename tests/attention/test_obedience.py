"""Obey or raise: what stands between a window and a decoder's layers is named, whatever it is."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from contextlib import nullcontext
from threading import Thread
from types import MethodType
from typing import Any

import jaxtyping
import pytest
import torch
import transformers
from naive import dense_masks
from tiny_models import LANGUAGE_MODELS, SHAPE, VOCABULARY
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DynamicCache,
    FalconConfig,
    FalconForCausalLM,
    GenerationConfig,
    GPTJConfig,
    GPTJForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2ForCausalLM,
    Qwen2Model,
)

import wandlib
from wandlib import WandCache, convert, full_attention, restore
from wandlib.attention.models import cache_argument, cache_inputs
from wandlib.attention.support import _same_mask

WINDOW, PROMPT, STEPS = 5, 9, 18
QWEN2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "qwen2")
NAME = cache_argument(QWEN2.build())


@pytest.fixture
def plain() -> Any:
    return QWEN2.build()


@pytest.fixture
def model(plain: Any) -> Any:
    return convert(copy.deepcopy(plain), WINDOW)


def ids(length: int = PROMPT, batch: int = 2) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, length))


@torch.no_grad()
def dense(plain: Any, sequences: Tensor, conditioning: Tensor) -> Tensor:
    """Logits of an unconverted model over whole sequences under the triple-loop mask."""
    conditioning = conditioning.expand(len(sequences), -1)
    mask = dense_masks(conditioning, torch.zeros_like(conditioning), WINDOW, QWEN2.limits)
    return plain(sequences, attention_mask=mask, use_cache=False).logits  # type: ignore[no-any-return]


def prefix(length: int, total: int) -> Tensor:
    return (torch.arange(total) < length)[None]


def greedy(model: Any, prompt: Tensor, steps: int = STEPS, **options: Any) -> Any:
    usual = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "max_new_tokens": steps}
    return model.generate(prompt, return_dict_in_generate=True, output_logits=True, **usual | options)


def snapshot(model: Any) -> Any:
    """Everything of a model that a refusal must leave as it was."""
    hooks = {name: (len(m._forward_pre_hooks), len(m._forward_hooks)) for name, m in model.named_modules()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    generation = model.generation_config.to_dict() if model.generation_config else None
    return set(vars(model)), model.config.to_dict(), generation, hooks, weights


def same(one: Any, other: Any) -> bool:
    tensors = all(torch.equal(value, other[4][name]) for name, value in one[4].items())
    return one[:4] == other[:4] and one[4].keys() == other[4].keys() and tensors


# ------------------------------------------------------------------------------------- decoders that do something else


class Deaf(Qwen2Model):
    """Ignores the cache that it is given and makes one of its own."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs | {NAME: DynamicCache(config=self.config)})


class Blind(Qwen2Model):
    """Ignores the mask that it is given."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs | {"attention_mask": None})


for _class in (Deaf, Blind):
    _class.forward.__signature__ = inspect.signature(Qwen2Model.forward)  # type: ignore[attr-defined]


class Renamed(Qwen2Model):
    """A release that has another name for the cache."""

    def forward(self, input_ids: Any = None, kv_store: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
        return super().forward(input_ids, attention_mask, **kwargs, **{NAME: kv_store})


class MaskRenamed(Qwen2Model):
    """A release that has another name for the mask."""

    def forward(self, input_ids: Any = None, visibility: Any = None, **kwargs: Any) -> Any:
        return super().forward(input_ids, visibility, **kwargs)


MaskRenamed.forward.__signature__ = inspect.signature(Qwen2Model.forward).replace(  # type: ignore[attr-defined]
    parameters=[p for n, p in inspect.signature(Qwen2Model.forward).parameters.items() if n != "attention_mask"]
)


def with_decoder(kind: type[Qwen2Model]) -> Any:
    model: Any = QWEN2.build()
    model.model = kind(model.config)
    return model.eval()


@torch.no_grad()
def test_a_decoder_that_ignores_the_cache_is_told_on() -> None:
    model = convert(with_decoder(Deaf), WINDOW)
    with pytest.raises(RuntimeError, match=r"Deaf ran 0 of its 3 attention layers on the WandCache.*full_attention"):
        model.generate(ids(), max_new_tokens=3)
    with full_attention(model):
        model(ids())


@torch.no_grad()
def test_a_decoder_that_ignores_the_mask_is_told_on() -> None:
    model = convert(with_decoder(Blind), WINDOW)
    with pytest.raises(RuntimeError, match="Blind gave the window's mask to 0 of its 3 attention layers"):
        model(ids(20), conditioning=prefix(5, 20).expand(2, -1), use_cache=False)


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
@pytest.mark.parametrize("where", ["padded prompt", "chunk", "step"])
def test_a_decoder_that_ignores_the_mask_of_a_cached_pass_is_told_on(where: str, static: bool) -> None:
    """A prefill, a chunk or a step that needs a mask: the first one that does not read it is an error, and the next."""
    model = convert(with_decoder(Blind), WINDOW)
    cache = WandCache(model.config, WINDOW, static=static, capacity=30 if static else None)
    feed = cache_inputs(model, cache) | {"use_cache": True}
    mask = torch.ones(2, PROMPT, dtype=torch.long)
    if where == "padded prompt":
        mask[0, :3] = 0
    else:  # what comes before is read by one that is not blind
        mask[0, :3] = where == "chunk"
        model.model.__class__ = Qwen2Model
        model(ids(), attention_mask=mask, **feed)
        for _ in range(7 if where == "chunk" else 0):
            model(ids(1), **feed)
        model.model.__class__ = Blind
    inputs = {"input_ids": ids(1 if where == "step" else PROMPT)}
    if where == "padded prompt":
        inputs["attention_mask"] = mask
    for _ in range(2):
        with pytest.raises((RuntimeError, ValueError), match=r"0 of its 3 attention layers|was interrupted"):
            model(**inputs, **feed)
    cache.reset()
    with full_attention(model):
        model(ids())


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"prefill_chunk_size": 4}], ids=["padded", "chunks"])
def test_generate_of_a_decoder_that_ignores_the_mask_is_told_on(options: dict[str, Any]) -> None:
    model, prompt = convert(with_decoder(Blind), WINDOW), ids()
    mask = torch.ones_like(prompt)
    mask[0, :3] = 0
    with pytest.raises(RuntimeError, match="Blind gave the window's mask to 0 of its 3 attention layers"):
        greedy(model, prompt, attention_mask=mask, **options)


@torch.no_grad()
def test_the_mask_of_a_step_is_watched_once(plain: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the step that first needs one: watching costs time."""
    made = []
    readers = wandlib.attention.hook.MaskReaders
    monkeypatch.setattr(wandlib.attention.hook, "MaskReaders", lambda *args: (made.append(1), readers(*args))[1])
    mask = torch.ones(2, PROMPT, dtype=torch.long)
    mask[0, :3] = 0
    greedy(model, ids(), attention_mask=mask)
    assert len(made) == 2


@torch.no_grad()
def test_layers_that_are_mixed_up_are_told_on(model: Any) -> None:
    """Layer 0 is written twice and layer 1 never: as many updates as there are layers."""
    model.model.layers[1].self_attn.layer_idx = 0
    with pytest.raises(RuntimeError, match="layer 0 wrote to the WandCache where layer 1 was due"):
        model(ids(), use_cache=True)


@pytest.mark.parametrize(
    ("kind", "message"), [(Renamed, "no key-value cache by a name"), (MaskRenamed, "takes no attention_mask")]
)
def test_the_next_rename_is_refused_at_convert(kind: Any, message: str) -> None:
    model = with_decoder(kind)
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        convert(model, WINDOW)
    assert same(before, snapshot(model))


class Swallowing(Qwen2ForCausalLM):
    """A head that takes any keyword and drops it."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        kept = {name: value for name, value in kwargs.items() if name not in ("conditioning", "block")}
        return super().forward(input_ids, attention_mask, labels=labels, **kept)


def test_a_head_that_swallows_conditioning_is_served_by_a_hook(plain: Any) -> None:
    swallowing = Swallowing(plain.config).eval()
    swallowing.load_state_dict(plain.state_dict())
    convert(swallowing, WINDOW)
    sequences, conditioning = ids(25), prefix(PROMPT, 25)
    with torch.no_grad():
        got = swallowing(sequences, conditioning=conditioning.expand(2, -1), use_cache=False).logits
    assert torch.allclose(got, dense(plain, sequences, conditioning), atol=1e-4)
    loss = swallowing.train()(sequences, conditioning=conditioning.expand(2, -1), labels=sequences).loss
    assert loss.isfinite()


class Passing(nn.Module):
    """Calls forward itself, as PEFT does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.forward(*args, **kwargs)


@torch.no_grad()
@pytest.mark.parametrize("kind", [Qwen2ForCausalLM, Swallowing])
@pytest.mark.parametrize("duplicate", [False, True], ids=["", "copy"])
def test_a_call_of_forward_itself_goes_through_the_hooks(plain: Any, kind: Any, duplicate: bool) -> None:
    """Of the model and of its base decoder; afterwards forward is the class's again."""
    model = kind(plain.config).eval()
    model.load_state_dict(plain.state_dict())
    model = copy.deepcopy(convert(model, WINDOW)) if duplicate else convert(model, WINDOW)
    assert inspect.signature(model.forward) == inspect.signature(kind(plain.config).forward)
    sequences, conditioning = ids(25), prefix(PROMPT, 25)
    told = {"conditioning": conditioning.expand(2, -1), "use_cache": False}
    expected = dense(plain, sequences, conditioning)
    assert torch.allclose(model.forward(sequences, **told).logits, expected, atol=1e-4)
    assert torch.allclose(Passing(model)(sequences, **told).logits, expected, atol=1e-4)
    hidden = model.model.forward(sequences, **told).last_hidden_state
    assert torch.allclose(model.lm_head(hidden), expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"conditioning=<bool tensor \[batch, time\]>"):
        model.forward(sequences, labels=sequences)
    for _ in range(2):  # an error in between leaves no mark behind
        with pytest.raises(ValueError, match=r"conditioning=<bool tensor"):
            model.model.forward(sequences, use_cache=False)
    restore(model)
    assert "forward" not in vars(model) | vars(model.model)
    assert torch.equal(model.forward(sequences).logits, plain(sequences).logits)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks by its old name
@torch.no_grad()
@pytest.mark.parametrize("head", [True, False], ids=["with head", "decoder alone"])
def test_adapters_obey(plain: Any, head: bool) -> None:
    """PEFT calls forward itself, of the model or, around a base decoder, of that."""
    from peft import LoraConfig, get_peft_model

    task = "CAUSAL_LM" if head else "FEATURE_EXTRACTION"
    inner = copy.deepcopy(plain) if head else copy.deepcopy(plain.model)
    adapted = convert(get_peft_model(inner, LoraConfig(task_type=task, target_modules=["q_proj"])), WINDOW).eval()
    sequences, conditioning = ids(25), prefix(PROMPT, 25)
    got = adapted(input_ids=sequences, conditioning=conditioning.expand(2, -1), use_cache=False)
    logits = got.logits if head else plain.lm_head(got.last_hidden_state)
    assert torch.allclose(logits, dense(plain, sequences, conditioning), atol=1e-4)
    with pytest.raises(ValueError, match=r"conditioning=<bool tensor \[batch, time\]>"):
        adapted(input_ids=sequences, **({"labels": sequences} if head else {"use_cache": False}))


@torch.no_grad()
def test_the_mask_of_a_step(plain: Any, model: Any) -> None:
    """Of a loop of one's own: it hides the padding that came in, and nothing else."""
    prompt = ids()
    for padding in (torch.zeros(2, PROMPT), torch.tensor([[1.0] * 3 + [0.0] * (PROMPT - 3), [0.0] * PROMPT])):
        cache, mask = WandCache(model.config, WINDOW), 1 - padding.long()
        feed = cache_inputs(model, cache) | {"use_cache": True}
        model(prompt, attention_mask=mask, **feed)
        mask = nn.functional.pad(mask, (0, 1), value=1)
        for wrong in (mask.clone().index_fill_(1, torch.tensor([4]), 0), 0 * mask, torch.zeros(2, 1).long()):
            with pytest.raises(ValueError, match="does not hide the same tokens as before"):
                model(ids(1), attention_mask=wrong, **feed)
        with pytest.raises(ValueError, match="does not hide the same") if bool(padding.any()) else nullcontext():
            model(ids(1), attention_mask=torch.ones_like(mask), **feed)
        model(ids(1), attention_mask=torch.ones(2, 1).long(), **feed)


@torch.no_grad()
def test_one_generate_has_one_cache(model: Any) -> None:
    """A model whose steps bring another cache than its prompt."""
    own = model.prepare_inputs_for_generation

    def prepare(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **kwargs) | cache_inputs(model, WandCache(model.config, WINDOW))

    model.prepare_inputs_for_generation = prepare
    with pytest.raises(ValueError, match="decodes in two caches"):
        model.generate(ids(), max_new_tokens=4)
    model.prepare_inputs_for_generation = own
    assert model.generate(ids(), max_new_tokens=4).shape == (2, PROMPT + 4)


@torch.no_grad()
def test_what_was_told_ends_with_its_pass(plain: Any, model: Any) -> None:
    """A pass that fails before it reaches the decoder leaves nothing for the next one."""
    sequences, conditioning = ids(25), prefix(PROMPT, 25).expand(2, -1)
    original, model.forward = model.forward, lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        model(sequences, conditioning=torch.ones_like(conditioning), use_cache=False)
    model.forward = original
    with pytest.raises(ValueError, match=r"conditioning=<bool tensor"):
        model(sequences, use_cache=False)
    got = model(sequences, conditioning=conditioning, use_cache=False).logits
    assert torch.allclose(got, dense(plain, sequences, conditioning), atol=1e-4)


@torch.no_grad()
def test_threads_that_score_one_model(model: Any) -> None:
    """One stops to watch while another's pass has already listed the hooks that it will call."""
    decoder = model.model

    def stop(*_: Any) -> None:
        others.stop()

    handle = decoder.layers[0].self_attn.register_forward_pre_hook(stop)
    others = wandlib.attention.hook.MaskReaders(decoder, {None: torch.zeros(1)})
    sequences, conditioning = ids(25), prefix(PROMPT, 25).expand(2, -1)
    expected = model(sequences, conditioning=conditioning, use_cache=False).logits
    handle.remove()
    assert torch.equal(model(sequences, conditioning=conditioning, use_cache=False).logits, expected)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["embed_tokens", "layers.1.mlp", "norm"])
def test_a_pass_that_raises_leaves_nothing_behind(model: Any, error: type[BaseException], place: str) -> None:
    """Neither hooks nor masks, in this thread or in one that is never used again; the model can be saved as it is."""
    hooks = {name: len(module._forward_pre_hooks) for name, module in model.named_modules()}
    sequences, told = ids(25), {"conditioning": prefix(PROMPT, 25).expand(2, -1)}

    def fail(*_: Any) -> None:
        raise error

    def interrupted() -> None:
        with pytest.raises(error):
            model(sequences, use_cache=False, **told)

    handle = model.model.get_submodule(place).register_forward_pre_hook(fail)
    interrupted()
    other = Thread(target=interrupted)
    other.start()
    other.join()
    handle.remove()
    assert hooks == {name: len(module._forward_pre_hooks) for name, module in model.named_modules()}
    assert not model.model.wand.readers
    assert not model.model.wand.told
    pickle.dumps(model)
    assert torch.isfinite(model(sequences, use_cache=False, **told).logits).all()


def test_restore_takes_off_what_a_hook_that_raised_has_left(model: Any) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a hook of another's")

    hooks = [len(layer.self_attn._forward_pre_hooks) for layer in model.model.layers]
    handle = model.model.register_forward_hook(fail, prepend=True)
    with pytest.raises(RuntimeError, match="another's"):
        model(ids(25), conditioning=prefix(PROMPT, 25).expand(2, -1), use_cache=False)
    handle.remove()
    restore(model)
    assert hooks == [len(layer.self_attn._forward_pre_hooks) for layer in model.model.layers]


def test_masks_are_known_again_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where layers lie on several devices, accelerate hands each a copy."""
    monkeypatch.setattr(torch, "equal", lambda one, other: one.device == other.device)
    with FakeTensorMode():
        mask = torch.empty(1, 1, 3, 3, device="cuda:0")
        assert _same_mask(torch.empty(1, 1, 3, 3, dtype=torch.bool, device="cuda:1"), mask)


@torch.no_grad()
def test_accelerate_unwraps_a_forward(plain: Any, model: Any) -> None:
    """What it takes autocast off again, it binds to the model."""
    model.forward = MethodType(model.forward, model)
    sequences, conditioning = ids(25), prefix(PROMPT, 25)
    told = {"conditioning": conditioning.expand(2, -1), "use_cache": False}
    for call in (model, model.forward):
        assert torch.allclose(call(sequences, **told).logits, dense(plain, sequences, conditioning), atol=1e-4)


def compiled_forward(model: Any) -> None:
    model.forward = torch.compile(model.forward, backend="eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace:UserWarning")
@torch.no_grad()
@pytest.mark.parametrize(
    "compiles", [lambda model: model.compile(backend="eager"), compiled_forward], ids=["", "forward"]
)
def test_compiled_models_obey(model: Any, compiles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where dynamo breaks the graph, it calls forward itself."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # dynamo cannot trace its checks
    torch._dynamo.reset()
    expected = greedy(model, prompt := ids()).sequences
    compiles(model)
    assert torch.equal(greedy(model, prompt).sequences, expected)


@torch.no_grad()
def test_a_forward_that_others_wrapped(plain: Any) -> None:
    """Before convert and after it, as accelerate does for autocast; restore leaves theirs."""
    calls = []

    def wrapped(forward: Any) -> Any:
        return lambda *args, **kwargs: (calls.append(1), forward(*args, **kwargs))[1]

    model = copy.deepcopy(plain)
    model.forward = before = wrapped(model.forward)
    convert(model, WINDOW)
    after = model.forward = wrapped(model.forward)
    sequences, conditioning = ids(25), prefix(PROMPT, 25)
    told = {"conditioning": conditioning.expand(2, -1), "use_cache": False}
    for call in (model, model.forward):
        assert torch.allclose(call(sequences, **told).logits, dense(plain, sequences, conditioning), atol=1e-4)
    restore(model)
    assert model.forward is after
    count = len(calls)
    assert torch.equal(model(sequences).logits, plain(sequences).logits)
    assert len(calls) == count + 2
    model.forward = before


@pytest.mark.parametrize(
    "build",
    [
        lambda: FalconForCausalLM(
            FalconConfig(vocab_size=97, hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
        ),
        lambda: GPTJForCausalLM(
            GPTJConfig(vocab_size=97, n_embd=32, n_layer=3, n_head=4, rotary_dim=4, n_positions=64)
        ),
    ],
    ids=["falcon", "gptj"],
)
def test_conditioning_reaches_decoders_behind_such_heads(build: Any) -> None:
    """Scoring with conditioning equals decoding with the cache, and differs from full attention."""
    model = build().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.25)
    sequences = ids(25)
    with torch.no_grad():
        full = model(sequences, use_cache=False).logits
        convert(model, WINDOW)
        scored = model(sequences, conditioning=prefix(PROMPT, 25).expand(2, -1), use_cache=False).logits
        cache = WandCache(model.config, WINDOW)
        parts = sequences.split([PROMPT] + [1] * (25 - PROMPT), 1)
        stepped = torch.cat([model(part, use_cache=True, **cache_inputs(model, cache)).logits for part in parts], 1)
    assert torch.allclose(scored, stepped, atol=1e-4)
    assert not torch.allclose(scored, full, atol=1e-2)


@torch.no_grad()
def test_other_caches_are_refused_and_nothing_changes(model: Any) -> None:
    with pytest.raises(ValueError, match="WandCache, not with this"):
        model(ids(), **{NAME: full_dynamic(model)}, use_cache=True)
    foreign = DynamicCache(config=model.config)
    with pytest.raises(ValueError, match="brings a cache of its own"):
        model.model(input_ids=ids(), paged_cache=foreign)
    with pytest.raises(ValueError, match="keys outside of the sequence"):
        model.model(input_ids=ids(), encoder_hidden_states=torch.zeros(2, 3, 32))
    layers = ((torch.zeros(2, 2, 3, 8),) * 2,) * 3  # as releases before 5 had it
    with pytest.raises(ValueError, match="a tuple of keys and values is no cache"):
        model(ids(1), **{NAME: layers}, use_cache=True)
    empty = DynamicCache(config=model.config)
    with pytest.raises(ValueError, match="conditioning must be a bool tensor"):
        model(ids(), **{NAME: empty}, conditioning=torch.ones(2, 3, dtype=torch.bool), use_cache=True)
    assert type(empty) is DynamicCache
    with full_attention(model):
        model(ids(), **{NAME: empty}, use_cache=True)
    assert empty.get_seq_length() == PROMPT


def full_dynamic(model: Any) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    with full_attention(model):
        model(ids(), use_cache=True, **{NAME: cache})
    return cache


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"static": True, "capacity": 20}, {"int8": True}], ids=str)
def test_a_refused_pass_leaves_the_cache_as_it_was(model: Any, options: dict[str, Any]) -> None:
    cache = WandCache(model.config, WINDOW, **options)
    feed = cache_inputs(model, cache) | {"use_cache": True}
    model(ids(), **feed)
    for _ in range(7):
        model(ids(1), **feed)
    twin = copy.deepcopy(cache)
    for wrong in (
        {"input_ids": ids(1, 3)},
        {"input_ids": ids(4), "conditioning": torch.ones(2, 3, dtype=torch.bool)},
        {"input_ids": ids(4), "position_ids": torch.tensor([[16, 17, 0, 1]]).expand(2, -1)},
        {"input_ids": ids(4), "attention_mask": torch.ones(2, 1, 4, 20, dtype=torch.bool)},
    ):
        with pytest.raises(ValueError, match=r"cache|conditioning|row|mask"):
            model(**wrong, **feed)
    step = ids(1)
    expected = model(step, use_cache=True, **cache_inputs(model, twin)).logits
    assert torch.equal(model(step, **feed).logits, expected)


# ------------------------------------------------------------------------------------------------- no cache, no telling


@torch.no_grad()
@pytest.mark.parametrize("where", ["argument", "generation config", "config"])
def test_generation_without_a_cache_obeys(plain: Any, model: Any, where: str) -> None:
    options: dict[str, Any] = {}
    if where == "argument":
        options["use_cache"] = False
    elif where == "generation config":
        model.generation_config.use_cache = False
    else:
        model.config.use_cache = model.generation_config.use_cache = False
    out = greedy(model, ids(), **options)
    expected = dense(plain, out.sequences, prefix(PROMPT, PROMPT + STEPS))[:, PROMPT - 1 : -1]
    assert torch.allclose(torch.stack(out.logits, 1), expected, atol=1e-4)


@torch.no_grad()
def test_a_pass_that_does_not_say_what_is_conditioning_is_refused(model: Any) -> None:
    for inputs in (
        {},
        {"use_cache": None},
        {"use_cache": False},
        {"labels": ids()},
        {"labels": ids(), "use_cache": True},
    ):
        with pytest.raises(ValueError, match=r"conditioning=<bool tensor \[batch, time\]>"):
            model(ids(), **inputs)
    with full_attention(model):
        model(ids(), use_cache=False)
        model(ids())
    model(ids(), use_cache=True)
    by_position = list(inspect.signature(model.forward).parameters).index("labels")
    with pytest.raises(ValueError, match=r"conditioning=<bool tensor \[batch, time\]>"):
        model(ids(), *[None] * (by_position - 1), ids())
    with pytest.raises(ValueError, match=r"conditioning=<bool tensor \[batch, time\]>"):
        model.train()(ids(), use_cache=True)


@torch.no_grad()
def test_guidance_is_refused(model: Any) -> None:
    """It decodes a second prompt in a cache of its own."""
    with pytest.raises(ValueError, match="guidance_scale decodes a second prompt"):
        model.generate(ids(), guidance_scale=1.7, max_new_tokens=4)


@torch.no_grad()
def test_packed_utterances_are_each_as_if_alone(plain: Any, model: Any) -> None:
    """In a row, told apart by positions that start again; with right padding behind; in training, too."""
    lengths, prompts = (12, 15), (4, 5)
    parts = [ids(length, 1) for length in lengths]
    flags = [prefix(n, length) for n, length in zip(prompts, lengths, strict=True)]
    expected = torch.cat([dense(plain, *pair) for pair in zip(parts, flags, strict=True)], 1)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    for pad in (0, 3):
        row = nn.functional.pad(torch.cat(parts, 1), (0, pad))
        mask = (torch.arange(27 + pad) < 27).long()[None]
        told = {
            "conditioning": nn.functional.pad(torch.cat(flags, 1), (0, pad)),
            "position_ids": nn.functional.pad(positions, (0, pad)),
        }
        got = model(row, attention_mask=mask, use_cache=False, **told).logits
        assert torch.allclose(got[:, :27], expected, atol=1e-4)
    assert torch.allclose(model.train()(row, attention_mask=mask, **told).logits[:, :27], expected, atol=1e-4)
    model.eval()
    with pytest.raises(ValueError, match="packed into one row cannot share a cache"):
        model(torch.cat(parts, 1), position_ids=positions, use_cache=True)
    with pytest.raises(ValueError, match="cu_seq_lens"):
        model(row, cu_seq_lens_q=torch.tensor([0, 12, 27]), use_cache=False, **told)


@torch.no_grad()
def test_text_blocks_of_packed_utterances(plain: Any) -> None:
    """Each is as if alone; what is pinned at the start of each cannot be told from what is pinned at the row's."""
    conditioning = torch.tensor([[True] * 4 + [False] * 3 + [True] * 2 + [False] * 4])
    time, parts = conditioning.shape[1], [ids(13, 1), ids(13, 1)]
    told = {"conditioning": conditioning.repeat(1, 2), "position_ids": torch.arange(time).repeat(2)[None]}
    model = convert(copy.deepcopy(plain), WINDOW, blocks=1)
    expected = [model(part, conditioning=conditioning, use_cache=False).logits for part in parts]
    got = model(torch.cat(parts, 1), use_cache=False, **told).logits
    assert torch.allclose(got, torch.cat(expected, 1), atol=1e-4)
    model = convert(copy.deepcopy(plain), WINDOW, blocks=1, pinned=2)
    with pytest.raises(ValueError, match=r"pinned=2 counts from the start of a row.*give each of them a row"):
        model(torch.cat(parts, 1), use_cache=False, **told)


@torch.no_grad()
def test_positions_counted_from_a_mask() -> None:
    """OPT counts them from the 2-D mask, which the window replaces."""
    shape = {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64, "dropout": 0.0}
    config = OPTConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **shape)
    model = OPTForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.25)
    convert(model, WINDOW)
    sequences, padding = ids(25), torch.arange(25) < torch.tensor([[0], [3]])
    conditioning = (torch.arange(25) < PROMPT) & ~padding
    scored = model(sequences, attention_mask=(~padding).long(), conditioning=conditioning, use_cache=False).logits
    cache = WandCache(model.config, WINDOW)
    for start, end in [(0, PROMPT), *((n, n + 1) for n in range(PROMPT, 25))]:
        inputs = {"attention_mask": (~padding[:, :end]).long(), "use_cache": True} | cache_inputs(model, cache)
        stepped = model(sequences[:, start:end], **inputs).logits
        real = ~padding[:, start:end]
        assert torch.allclose(stepped[real], scored[:, start:end][real], atol=1e-4)


# --------------------------------------------------------------------------------------------------- prompts in pieces


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"static": True}, {"static": True, "capacity": 30}, {"int8": True}], ids=str)
@pytest.mark.parametrize("left", [1, 2, 5])
def test_a_cached_prefix(plain: Any, model: Any, options: dict[str, Any], left: int) -> None:
    prompt, cache = ids(), WandCache(model.config, WINDOW, **options)
    model(prompt[:, :-left], use_cache=True, **cache_inputs(model, cache))
    out = greedy(model, prompt, **{NAME: cache})
    expected = dense(plain, out.sequences, prefix(PROMPT, PROMPT + STEPS))[:, PROMPT - 1 : -1]
    got = torch.stack(out.logits, 1)
    if "int8" in options:
        assert 0 < (got - expected).norm() / expected.norm() < 0.05
    else:
        assert torch.allclose(got, expected, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"static": True}], ids=["dynamic", "static"])
@pytest.mark.parametrize("size", [4, 5, 8, 16])
@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
def test_a_prompt_in_chunks(model: Any, options: dict[str, Any], size: int, padded: bool) -> None:
    """17 tokens: the last chunk has one, two, one and one."""
    prompt, mask = ids(17), torch.ones(2, 17, dtype=torch.long)
    if padded:
        mask[0, :3] = 0
    expected = greedy(model, prompt, attention_mask=mask)
    cache = {NAME: WandCache(model.config, WINDOW, **options)} if options else {}
    got = greedy(model, prompt, attention_mask=mask, prefill_chunk_size=size, **cache)
    assert torch.equal(got.sequences, expected.sequences)
    assert torch.allclose(torch.stack(got.logits), torch.stack(expected.logits), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"static": True, "capacity": 40}], ids=["dynamic", "static"])
@pytest.mark.parametrize("more", [0, 1, 4])
def test_a_second_turn(plain: Any, model: Any, options: dict[str, Any], more: int) -> None:
    """What the first turn sampled is generated, its last token too, which was not fed; what the user adds is not."""
    cache = WandCache(model.config, WINDOW, **options)
    first = greedy(model, ids(batch=1), **{NAME: cache}).sequences
    prompt = torch.cat([first, ids(more, 1)], 1)
    out = greedy(model, prompt, 8, **{NAME: cache})
    kinds = torch.arange(out.sequences.shape[1])
    conditioning = (kinds < PROMPT) | ((kinds >= PROMPT + STEPS) & (kinds < PROMPT + STEPS + more))
    expected = dense(plain, out.sequences, conditioning[None])[:, prompt.shape[1] - 1 : -1]
    assert torch.allclose(torch.stack(out.logits, 1), expected, atol=1e-4)


@torch.no_grad()
def test_turns_by_their_new_tokens_alone(plain: Any, model: Any) -> None:
    """Three of them, with the mask of everything: the token that each samples last is generated in the next one."""
    cache, said, kinds = WandCache(model.config, WINDOW), ids(batch=1), [True] * PROMPT
    whole = said
    for turn in range(3):
        mask = torch.ones_like(whole)
        out = greedy(model, said, 8, attention_mask=mask, **{NAME: cache})
        kinds += [False] * 8
        new = out.sequences[:, said.shape[1] :]
        whole = torch.cat([whole, new], 1)
        expected = dense(plain, whole, torch.tensor([kinds]))[:, -9:-1]
        assert torch.allclose(torch.stack(out.logits, 1), expected, atol=1e-4), f"turn {turn}"
        more = ids(3, 1)
        said, whole, kinds = torch.cat([new[:, -1:], more], 1), torch.cat([whole, more], 1), kinds + [True] * 3


@torch.no_grad()
def test_a_second_turn_by_embeddings(plain: Any, model: Any) -> None:
    """They do not say whether they begin with the token that was sampled last: refused, unless that is said or fed."""
    embed, cache = model.get_input_embeddings(), WandCache(model.config, WINDOW)
    first = greedy(model, ids(batch=1), **{NAME: cache}).sequences
    more = ids(4, 1)
    whole = torch.cat([first, more], 1)
    new = embed(whole[:, -5:])
    with pytest.raises(ValueError, match="inputs_embeds do not show whether they begin with it"):
        model.generate(inputs_embeds=embed(whole), max_new_tokens=4, **{NAME: copy.deepcopy(cache)})
    conditioning = torch.arange(whole.shape[1])[None]
    conditioning = (conditioning < PROMPT) | (conditioning >= PROMPT + STEPS)
    expected = dense(plain, whole, conditioning)[:, -1]
    told = model(inputs_embeds=new, conditioning=conditioning[:, -5:], use_cache=True, **{NAME: copy.deepcopy(cache)})
    assert torch.allclose(told.logits[:, -1], expected, atol=1e-4)
    model(inputs_embeds=new[:, :1], use_cache=True, **{NAME: cache})
    options = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True, NAME: cache}
    out = model.generate(inputs_embeds=embed(whole), max_new_tokens=1, **options)
    assert torch.allclose(out.logits[0], expected, atol=1e-4)


class EmbedsFirst(nn.Module):
    """In place of a model's ``forward``: embeds the ids, as models of text and images do before their decoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embed, self.through = model.get_input_embeddings(), type(model).forward.__get__(model)

    def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **kwargs: Any) -> Any:
        return self.through(inputs_embeds=self.embed(input_ids) if inputs_embeds is None else inputs_embeds, **kwargs)


@torch.no_grad()
def test_a_second_turn_of_a_decoder_that_is_given_embeddings_alone() -> None:
    plain = QWEN2.build()
    model: Any = copy.deepcopy(plain)
    model.forward = EmbedsFirst(model).forward
    convert(model, WINDOW)
    cache = WandCache(model.config, WINDOW)
    first = greedy(model, ids(batch=1), **{NAME: cache}).sequences
    prompt = torch.cat([first, ids(4, 1)], 1)
    out = greedy(model, prompt, 8, **{NAME: cache})
    kinds = torch.arange(out.sequences.shape[1])
    conditioning = (kinds < PROMPT) | ((kinds >= PROMPT + STEPS) & (kinds < PROMPT + STEPS + 4))
    expected = dense(plain, out.sequences, conditioning[None])[:, prompt.shape[1] - 1 : -1]
    assert torch.allclose(torch.stack(out.logits, 1), expected, atol=1e-4)


@torch.no_grad()
def test_a_second_turn_without_the_sampled_token(plain: Any, model: Any) -> None:
    """The user cut it off, and wrote another in its place: that one is conditioning."""
    cache = WandCache(model.config, WINDOW)
    first = greedy(model, ids(batch=1), **{NAME: cache}).sequences
    other = first.clone()
    other[:, -1] = first[:, -1] % (VOCABULARY - 1) + 1
    out = greedy(model, torch.cat([other, ids(2, 1)], 1), 8, **{NAME: cache})
    kinds = torch.arange(out.sequences.shape[1])
    end = PROMPT + STEPS
    conditioning = (kinds < PROMPT) | ((kinds >= end - 1) & (kinds < end + 2))
    expected = dense(plain, out.sequences, conditioning[None])[:, end + 1 : -1]
    assert torch.allclose(torch.stack(out.logits, 1), expected, atol=1e-4)


@torch.no_grad()
def test_masks_that_others_prepared(plain: Any, model: Any) -> None:
    prompt = ids()
    causal = torch.ones(PROMPT, PROMPT, dtype=torch.bool).tril().expand(2, 1, -1, -1)
    expected = plain(prompt).logits
    assert torch.allclose(model(prompt, attention_mask=causal, use_cache=True).logits, expected, atol=1e-5)
    with pytest.raises(ValueError, match="lets tokens see later ones"):
        model(prompt, attention_mask=torch.ones_like(causal), use_cache=True)


# ----------------------------------------------------------------------------------------------------- whole batteries


@torch.no_grad()
def test_generate_batch_obeys(plain: Any, model: Any) -> None:
    prompts = [ids(length, 1)[0].tolist() for length in (9, 4, 12)]
    config = GenerationConfig(max_new_tokens=STEPS, do_sample=False, eos_token_id=-1, pad_token_id=0)
    results = list(model.generate_batch(prompts, config, batch_size=2).values())
    assert [result.prompt_ids for result in results] == prompts
    for result in results:
        assert result.is_finished()
        whole = torch.tensor([result.prompt_ids + result.generated_tokens])
        length = len(result.prompt_ids)
        expected = dense(plain, whole, prefix(length, whole.shape[1]))[0, length - 1 : -1].argmax(-1)
        assert result.generated_tokens == expected.tolist()
    with pytest.raises(ValueError, match="record_timestamps"):
        model.generate_batch(prompts, config, record_timestamps=True)
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match="batch_size is a whole number, at least 1; got"):
            model.generate_batch(prompts, config, batch_size=wrong)
    with pytest.raises(ValueError, match="prompt 1 has no tokens"):
        model.generate_batch([[1, 2], []], config)
    for name in ("init_continuous_batching", "continuous_batching_context_manager"):
        with pytest.raises(ValueError, match=f"{name}.*paged cache of its own"):
            getattr(model, name)(config)


@torch.no_grad()
def test_generate_batch_never_ends_at_a_negative_token(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config of the model says when to end, and is not asked."""
    prompt = ids(9, 1)
    tokens = greedy(model, prompt).sequences[0, 9:].tolist()
    monkeypatch.setattr(model.generation_config, "eos_token_id", tokens[2])
    config = GenerationConfig(max_new_tokens=len(tokens), do_sample=False, eos_token_id=-1, pad_token_id=0)
    (result,) = model.generate_batch([prompt[0].tolist()], config).values()
    assert result.generated_tokens == tokens


@torch.no_grad()
def test_generate_batch_under_full_attention(plain: Any, model: Any) -> None:
    prompts = [ids(length, 1)[0].tolist() for length in (9, 4)]
    config = GenerationConfig(max_new_tokens=STEPS, do_sample=False, pad_token_id=0)
    with full_attention(model):
        results = model.generate_batch(prompts, config).values()
        with pytest.raises(ValueError, match="restore"):
            model.init_continuous_batching(config)
    for prompt, result in zip(prompts, results, strict=True):
        expected = plain.generate(torch.tensor([prompt]), generation_config=config)[0, len(prompt) :]
        assert result.generated_tokens == expected.tolist()


def test_generate_batch_says_nothing_about_its_arguments(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    for name in ("warning", "warning_once"):
        monkeypatch.setattr(transformers.generation.utils.logger, name, lambda message, *_, **__: said.append(message))
    config = GenerationConfig(max_new_tokens=2, do_sample=False, return_dict_in_generate=True, pad_token_id=0)
    (result,) = model.generate_batch([[3, 4, 5]], config).values()
    assert len(result.generated_tokens) == 2
    assert said == []


def test_generate_batch_ends_at_an_end_token(model: Any) -> None:
    prompt = ids(9, 1)
    tokens = greedy(model, prompt).sequences[0, 9:].tolist()
    config = GenerationConfig(max_new_tokens=STEPS, do_sample=False, eos_token_id=tokens[4], pad_token_id=0)
    (result,) = model.generate_batch([prompt[0].tolist()], config).values()
    assert result.generated_tokens == tokens[: tokens.index(tokens[4]) + 1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4)), "ALiBi"),
        (
            lambda: FalconForCausalLM(
                FalconConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True)
            ),
            "ALiBi",
        ),
    ],
    ids=["bloom", "falcon"],
)
def test_alibi_is_refused_and_the_model_untouched(build: Any, message: str) -> None:
    model = build()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        convert(model, WINDOW)
    assert same(before, snapshot(model))


def test_either_name_of_the_cache_is_taken_without_a_warning(model: Any) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        prompt = ids()
        expected = model(prompt, use_cache=True).logits
        for name in ("cache", "past_key_values"):
            cache = WandCache(model.config, WINDOW)
            assert torch.equal(model(prompt, use_cache=True, **{name: cache}).logits, expected)
            assert cache.get_seq_length() == PROMPT
            again = WandCache(model.config, WINDOW)
            model.generate(prompt, max_new_tokens=2, attention_mask=torch.ones_like(prompt), **{name: again})
            assert again.get_seq_length() == PROMPT + 1


@pytest.mark.parametrize("window", [6.0, torch.tensor(6), 6])
def test_whole_numbers_of_any_type(plain: Any, window: Any) -> None:
    convert(plain, window)
    assert plain.config.wand["window"] == 6
    assert type(plain.config.wand["window"]) is int
    restore(plain)
    for wrong in (6.5, float("nan"), True, 0):
        with pytest.raises(ValueError, match="at least 1"):
            convert(plain, wrong)


def test_generate_keeps_its_signature(plain: Any, model: Any) -> None:
    assert inspect.signature(model.generate) == inspect.signature(plain.generate)
    restore(model)
    assert "generate" not in vars(model)
    assert wandlib.restore is restore


def test_older_releases_find_rope_theta(model: Any, tmp_path: Any) -> None:
    import json

    model.config.rope_parameters["rope_theta"] = 12345.0
    restored = restore(model)
    convert(restored, WINDOW)
    restored.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["rope_theta"] == 12345.0
    assert wandlib.load(tmp_path).config.rope_parameters["rope_theta"] == 12345.0
    assert SHAPE["vocab_size"] == VOCABULARY
