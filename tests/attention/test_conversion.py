"""convert: stock models and stock `generate`, under the window, against a brute force that recomputes everything."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from naive import brute_force, dense_masks, positions
from tiny_models import LANGUAGE_MODELS, SHAPE, SPEECH_DECODERS, VOCABULARY, Tiny
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BarkSemanticConfig,
    BarkSemanticModel,
    DynamicCache,
    PreTrainedModel,
    StaticCache,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)
from transformers.models.csm.configuration_csm import CsmConfig
from transformers.models.csm.modeling_csm import CsmForConditionalGeneration
from transformers.models.vibevoice.configuration_vibevoice import VibeVoiceConfig
from transformers.models.vibevoice.modeling_vibevoice import VibeVoiceForConditionalGeneration

from wandlib.attention.adapters import complete_adapter
from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import convert, full_attention, load, restore, set_window
from wandlib.attention.models import base_decoder
from wandlib.attention.window import UNBOUNDED

WINDOW, STEPS = 6, 24
LANGUAGE = pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
EVERY = pytest.mark.parametrize("tiny", LANGUAGE_MODELS + SPEECH_DECODERS, ids=str)
QWEN2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "qwen2")


def prompt(batch: int = 2, length: int = 7) -> Tensor:
    return torch.randint(1, VOCABULARY, (batch, length))


def left_padded() -> tuple[Tensor, Tensor]:
    ids = prompt(3)
    padding = torch.arange(7) < torch.tensor([0, 3, 1])[:, None]
    return ids.masked_fill(padding, 0), padding


def generate(model: Any, ids: Tensor, steps: int = STEPS, **options: Any) -> Any:
    options = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True} | options
    return model.generate(ids, max_new_tokens=steps, **options)


def hidden(model: Any, **inputs: Any) -> Tensor:
    return base_decoder(model)(**inputs).last_hidden_state


# ---------------------------------------------------------------------------------------------------------- the matrix


@LANGUAGE
@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
@torch.no_grad()
def test_greedy_equals_brute_force(tiny: Tiny, padded: bool) -> None:
    model = tiny.build()
    ids, padding = left_padded() if padded else (prompt(), None)
    tokens, logits = brute_force(model, ids, STEPS, WINDOW, tiny.limits, padding)
    mask = {} if padding is None else {"attention_mask": (~padding).long()}
    before = generate(model, ids, **mask).logits
    convert(model, WINDOW)
    out = generate(model, ids, **mask)
    assert torch.equal(out.sequences, tokens)
    assert torch.allclose(torch.stack(out.logits, 1), logits, atol=1e-4)
    assert isinstance(out.past_key_values, WandCache)
    assert not torch.allclose(torch.stack(before, 1), logits, atol=1e-2), "the window changes nothing here"


@pytest.mark.parametrize("tiny", SPEECH_DECODERS, ids=str)
@torch.no_grad()
def test_speech_decoders_equal_brute_force(tiny: Tiny) -> None:
    """Step by step over embeddings, hidden states equal those of one pass under the dense mask."""
    model = tiny.build()
    embeds = torch.randn(2, 7 + STEPS, 32)
    conditioning = (torch.arange(7 + STEPS) < 7).expand(2, -1)
    mask = dense_masks(conditioning, torch.zeros_like(conditioning), WINDOW, tiny.limits)
    expected = hidden(model, inputs_embeds=embeds, attention_mask=mask, use_cache=False)
    full = hidden(model, inputs_embeds=embeds, use_cache=False)
    convert(model, WINDOW)
    cache = WandCache(model.config, WINDOW)
    parts = embeds.split([7] + [1] * STEPS, 1)
    got = torch.cat([hidden(model, inputs_embeds=part, past_key_values=cache, use_cache=True) for part in parts], 1)
    assert torch.allclose(got, expected, atol=1e-4)
    assert not torch.allclose(got, full, atol=1e-2), "the window changes nothing here"


@EVERY
@torch.no_grad()
def test_a_window_as_long_as_the_utterance_changes_nothing(tiny: Tiny) -> None:
    model = tiny.build()
    embeds = torch.randn(2, 30, 32)
    expected = hidden(model, inputs_embeds=embeds, use_cache=False)
    convert(model, 23)
    cache = WandCache(model.config, 23)
    parts = embeds.split([7] + [1] * 23, 1)
    got = torch.cat([hidden(model, inputs_embeds=part, past_key_values=cache, use_cache=True) for part in parts], 1)
    assert torch.allclose(got, expected, atol=1e-4)


@EVERY
@torch.no_grad()
def test_restore_is_bit_for_bit(tiny: Tiny) -> None:
    model = tiny.build()
    embeds = torch.randn(2, 9, 32)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes, config = set(vars(model)), model.config.to_dict()
    expected = hidden(model, inputs_embeds=embeds)
    assert restore(convert(model, WINDOW)) is model
    assert torch.equal(hidden(model, inputs_embeds=embeds), expected)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert (set(vars(model)), model.config.to_dict()) == (attributes, config)
    assert not base_decoder(model)._forward_pre_hooks
    assert not model._forward_hooks


@LANGUAGE
def test_save_and_load(tiny: Tiny, tmp_path: Path) -> None:
    model = convert(tiny.build(), WINDOW)
    ids = prompt()
    expected = generate(model, ids).sequences
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.config.wand == {"window": WINDOW, "conditioning_until": None}
    assert torch.equal(generate(loaded, ids).sequences, expected)
    with full_attention(model), full_attention(loaded):
        assert torch.equal(generate(loaded, ids).sequences, generate(model, ids).sequences)


@EVERY
def test_gradients_equal_those_under_the_dense_mask(tiny: Tiny) -> None:
    """Left padding, a prefix of its own length in each sample, and a later block."""
    model = tiny.build()
    embeds = torch.randn(2, 20, 32)
    padding = torch.arange(20) < torch.tensor([[0], [3]])
    conditioning = (torch.arange(20) < torch.tensor([[5], [8]])) | (torch.arange(20) == 15)
    inputs = {"inputs_embeds": embeds, "position_ids": positions(padding)}
    mask = dense_masks(conditioning, padding, 4, tiny.limits)

    def gradients(**options: Any) -> list[Tensor]:
        model.zero_grad()
        (hidden(model, use_cache=False, **inputs, **options)[~padding] ** 2).sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected = gradients(attention_mask=mask)
    convert(model.train(), 4)
    got = gradients(attention_mask=(~padding).long(), conditioning=conditioning)
    assert len(got) == len(expected) > 0
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


# ----------------------------------------------------------------------------------------------- generate, at large


@pytest.fixture
def model() -> PreTrainedModel:
    return convert(QWEN2.build(), WINDOW)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_beams_score_what_brute_force_scores(attention: str) -> None:
    """A beam's score is the sum of the log-probabilities of its tokens under the dense mask; padded batch."""
    plain = QWEN2.build()
    model = convert(copy.deepcopy(plain), WINDOW)
    model.set_attn_implementation(attention)
    ids, padding = left_padded()
    out = generate(
        model,
        ids,
        12,
        attention_mask=(~padding).long(),
        num_beams=3,
        output_scores=True,
        length_penalty=0.0,
        num_return_sequences=3,
    )
    padding = torch.nn.functional.pad(padding.repeat_interleave(3, 0), (0, 12))
    conditioning = (torch.arange(7 + 12) < 7).expand(9, -1)
    mask = dense_masks(conditioning, padding, WINDOW, QWEN2.limits)
    logits = plain(out.sequences, attention_mask=mask, position_ids=positions(padding), use_cache=False).logits
    chosen = logits[:, 6:-1].log_softmax(-1).gather(2, out.sequences[:, 7:, None]).sum((1, 2))
    assert torch.allclose(out.sequences_scores, chosen, atol=1e-4)


@torch.no_grad()
def test_sampling_draws_the_same_from_the_same_logits(model: PreTrainedModel) -> None:
    ids = prompt(1)
    out = generate(model, ids, do_sample=True, top_k=20, num_return_sequences=3)
    conditioning = (torch.arange(7 + STEPS) < 7).expand(3, -1)
    mask = dense_masks(conditioning, torch.zeros_like(conditioning), WINDOW, QWEN2.limits)
    logits = restore(model)(out.sequences, attention_mask=mask, use_cache=False).logits
    assert torch.allclose(torch.stack(out.logits, 1), logits[:, 6:-1], atol=1e-4)
    assert len({tuple(row) for row in out.sequences.tolist()}) == 3


@torch.no_grad()
def test_a_cache_passed_by_hand_brings_its_own_window(model: PreTrainedModel) -> None:
    ids = prompt()
    cache = WandCache(model.config, window=3)
    got = generate(model, ids, past_key_values=cache).sequences
    assert torch.equal(got, generate(set_window(model, window=3), ids).sequences)
    assert cache.layers[0].keys.shape[2] == 7 + 3


@torch.no_grad()
@pytest.mark.parametrize("rule", [{}, {"blocks": 2, "pinned": 3}, {"conditioning_until": 9}], ids=str)
def test_a_cache_made_by_hand_has_the_rule_of_the_model(rule: dict[str, int]) -> None:
    """Token for token what generate makes of none; what is given holds, and so does 32 for a config without a rule."""
    model = convert(QWEN2.build(), WINDOW, **rule)
    ids, cache = prompt(), WandCache(model.config)
    assert torch.equal(generate(model, ids, past_key_values=cache).sequences, generate(model, ids).sequences)
    assert cache.window == WINDOW
    assert (cache.layout.blocks, cache.layout.pinned) == (rule.get("blocks", UNBOUNDED), rule.get("pinned", 0))
    assert cache.kinds.until == rule.get("conditioning_until")
    assert WandCache(set_window(model, window=4).config).window == 4
    own = WandCache(model.config, 7, blocks=5, pinned=4, conditioning=3)
    assert (own.window, own.layout.blocks, own.layout.pinned, own.kinds.until) == (7, 5, 4, None)
    assert WandCache(restore(model).config).window == 32


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True], ids=["plain", "padded"])
def test_a_static_cache_generates_the_same(model: PreTrainedModel, padded: bool) -> None:
    ids, padding = left_padded()
    mask = {"attention_mask": (~padding).long()} if padded else {}
    cache = WandCache(model.config, WINDOW, static=True)
    assert torch.equal(
        generate(model, ids, past_key_values=cache, **mask).sequences, generate(model, ids, **mask).sequences
    )


@torch.no_grad()
def test_generate_from_embeddings(model: PreTrainedModel) -> None:
    """CosyVoice and IndexTTS prefill with embeddings."""
    ids = prompt()
    embeds = model.get_input_embeddings()(ids)
    got = model.generate(inputs_embeds=embeds, max_new_tokens=STEPS, do_sample=False)
    assert torch.equal(got, generate(model, ids).sequences[:, 7:])


@torch.no_grad()
def test_prefill_in_chunks(model: PreTrainedModel) -> None:
    ids = prompt(2, 17)
    cache = WandCache(model.config, WINDOW, conditioning=17)
    got = generate(model, ids, past_key_values=cache, prefill_chunk_size=4).sequences
    assert torch.equal(got, generate(model, ids).sequences)


@torch.no_grad()
def test_an_empty_dynamic_cache_becomes_a_wand_cache(model: PreTrainedModel) -> None:
    """The caller's own object, so that a loop which holds on to it goes on with it."""
    mine = DynamicCache(config=model.config)
    ids = prompt(1, 7 + STEPS)
    parts = ids.split([7] + [1] * STEPS, 1)
    got = torch.cat([model(part, past_key_values=mine, use_cache=True).logits for part in parts], 1)
    cache = WandCache(model.config, WINDOW)
    assert isinstance(mine, WandCache)
    assert torch.equal(got, torch.cat([model(p, past_key_values=cache, use_cache=True).logits for p in parts], 1))


@torch.no_grad()
def test_a_mask_too_short_for_the_cache_is_dropped(model: PreTrainedModel) -> None:
    """Upstream CosyVoice decodes with a mask of length 1, which transformers pads with zeros."""
    caches = [WandCache(model.config, WINDOW) for _ in range(2)]
    ids = prompt(1)
    for cache in caches:
        model(ids, past_key_values=cache, use_cache=True)
    step = prompt(1, 1)
    got = model(step, past_key_values=caches[0], attention_mask=torch.ones(1, 1), use_cache=True).logits
    assert torch.equal(got, model(step, past_key_values=caches[1], use_cache=True).logits)


@torch.no_grad()
def test_conditioning_until_a_token(model: PreTrainedModel) -> None:
    """The tokens the model generates before the end marker stay visible, in each sample up to its own marker."""
    ids = prompt(3)
    free = generate(model, ids, 8).sequences
    marker = int(free[0, 7 + 4])
    model = convert(restore(model), WINDOW, conditioning_until=marker)
    out = generate(model, ids)
    generated = out.sequences == marker
    conditioning = generated.cumsum(1) - generated.int() == 0
    mask = dense_masks(conditioning, torch.zeros_like(conditioning), WINDOW, QWEN2.limits)
    logits = restore(model)(out.sequences, attention_mask=mask, use_cache=False).logits[:, 6:-1]
    assert torch.allclose(torch.stack(out.logits, 1), logits, atol=1e-4)


def test_assisted_decoding_is_refused_except_under_full_attention(model: PreTrainedModel) -> None:
    ids = prompt(1)
    for options in ({"assistant_model": QWEN2.build(1)}, {"prompt_lookup_num_tokens": 2}):
        with pytest.raises(ValueError, match=r"assisted decoding.*full_attention"):
            model.generate(ids, max_new_tokens=4, **options)
    with full_attention(model):
        assert model.generate(ids, max_new_tokens=4, assistant_model=QWEN2.build(1)).shape == (1, 11)


# ------------------------------------------------------------------------------------------------------- full attention


@torch.no_grad()
def test_full_attention_is_the_model_before(model: PreTrainedModel) -> None:
    ids = prompt()
    expected = generate(QWEN2.build(), ids)
    windowed = generate(model, ids).sequences
    with full_attention(model) as teacher:
        assert teacher is model
        with full_attention(model):
            pass
        got = generate(model, ids)
        assert type(got.past_key_values) is DynamicCache
        conditioning = torch.ones_like(ids, dtype=torch.bool)  # said to both, heeded by the student
        assert torch.equal(model(ids, conditioning=conditioning).logits, QWEN2.build()(ids).logits)
    assert torch.equal(torch.stack(got.logits), torch.stack(expected.logits))
    assert torch.equal(generate(model, ids).sequences, windowed)


def test_full_attention_ends_with_its_block_and_stays_in_its_thread(model: PreTrainedModel) -> None:
    ids = prompt(1)
    seen: list[type] = []

    def interrupted() -> None:
        with full_attention(model):
            other = threading.Thread(target=lambda: seen.append(type(generate(model, ids, 2).past_key_values)))
            other.start()
            other.join()
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert seen == [WandCache]
    assert isinstance(generate(model, ids, 2).past_key_values, WandCache)


@torch.no_grad()
def test_a_copy_made_under_full_attention_has_its_window(model: PreTrainedModel) -> None:
    ids = prompt(1)
    expected = generate(model, ids).sequences
    with full_attention(model):
        copied, read = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        full = generate(model, ids).sequences
    assert not torch.equal(full, expected)
    for other in (copied, read):
        assert torch.equal(generate(other, ids).sequences, expected)


def test_a_wand_cache_under_full_attention_is_refused(model: PreTrainedModel) -> None:
    with full_attention(model), pytest.raises(RuntimeError, match="DynamicCache"):
        model(prompt(), past_key_values=WandCache(model.config, WINDOW), use_cache=True)


# ---------------------------------------------------------------------------------------------------------- training


@torch.no_grad()
def test_soft_mask_leans_on_the_window_as_tau_grows(model: PreTrainedModel) -> None:
    """tau = 0 is full attention, tau = inf the hard window, and in between the output moves from one to the other."""
    ids = prompt(2, 25)
    conditioning = (torch.arange(25) < 5).expand(2, -1)
    full = restore(model)(ids).logits
    convert(model, WINDOW)

    def at(tau: float) -> Tensor:
        return set_window(model, tau=tau)(ids, conditioning=conditioning).logits

    hard = at(float("inf"))
    assert torch.allclose(at(0.0), full, atol=1e-5)
    assert torch.allclose(at(1e9), hard, atol=1e-5)
    distances = [float((at(tau) - hard).norm()) for tau in (0.0, 1.0, 3.0, 10.0, 30.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 1e-2


def test_soft_mask_lets_gradient_through(model: PreTrainedModel) -> None:
    embeds = torch.randn(1, 20, 32, requires_grad=True)
    conditioning = torch.zeros(1, 20, dtype=torch.bool)

    def leak(tau: float) -> float:
        """Gradient of the last output with respect to the first token, out of reach of three layers of windows of 6."""
        out = set_window(model, tau=tau)(inputs_embeds=embeds, conditioning=conditioning).logits[:, -1].sum()
        return float(torch.autograd.grad(out, embeds)[0][:, 0].abs().max())

    assert leak(2.0) > 1e-6
    assert leak(float("inf")) == 0.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace:UserWarning")  # flex attention's own, on a CPU
@torch.no_grad()
def test_flex_attention_gets_a_block_mask(model: PreTrainedModel) -> None:
    ids = prompt(2, 25)
    conditioning = (torch.arange(25) < 5).expand(2, -1)
    expected = model(ids, conditioning=conditioning).logits
    model.set_attn_implementation("flex_attention")
    assert torch.allclose(model(ids, conditioning=conditioning).logits, expected, atol=1e-4)


def test_training_without_conditioning_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match=r"conditioning=<bool tensor \[batch, time\]>"):
        model.train()(prompt(), labels=prompt())
    with pytest.raises(ValueError, match="2-D attention_mask"):
        model(prompt(), conditioning=torch.ones(2, 7).bool(), attention_mask=torch.zeros(2, 1, 7, 7))
    with full_attention(model):
        assert model(prompt(), labels=prompt()).loss.isfinite()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")  # its new name came after 5.17
def test_gradient_checkpointing_and_autocast(model: PreTrainedModel) -> None:
    ids = prompt(2, 20)
    conditioning = (torch.arange(20) < 5).expand(2, -1)

    def gradient() -> Tensor:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            model(ids, labels=ids, conditioning=conditioning).loss.backward()
        return model.get_input_embeddings().weight.grad.clone()

    expected = gradient()
    model.train().gradient_checkpointing_enable()
    assert torch.allclose(gradient(), expected, atol=1e-4)
    assert expected.abs().max() > 0


def test_two_models_that_share_a_config_have_one_window() -> None:
    """It is by the config that files are saved and caches made: the second window would be the first one's as well."""
    one = QWEN2.build()
    other = type(one)(one.config)
    convert(one, WINDOW)
    for change in (lambda: convert(other, WINDOW + 1), lambda: set_window(convert(other, WINDOW), window=WINDOW + 1)):
        with pytest.raises(ValueError, match=f"with a window of {WINDOW}, has the very same config object"):
            change()
        assert one.config.wand["window"] == WINDOW
    assert base_decoder(other).wand.window == WINDOW
    restore(one)
    assert WandCache(other.config).window == WINDOW
    set_window(other, window=WINDOW + 1)
    restore(other)
    assert not hasattr(one.config, "wand")


def test_a_model_that_nobody_holds_does_not_keep_its_config() -> None:
    """A loop over windows builds one model after the other from one config, and the collector comes when it likes."""
    config = QWEN2.build().config
    gc.disable()
    try:
        for window in (1, 8, 40):
            assert WandCache(convert(AutoModelForCausalLM.from_config(config), window).config).window == window
    finally:
        gc.enable()


def test_a_training_pass_keeps_no_cache(model: PreTrainedModel) -> None:
    conditioning = torch.arange(7).expand(2, -1) < 3
    assert model.train()(prompt(), conditioning=conditioning).past_key_values is None


def test_scoring_equals_decoding(model: PreTrainedModel) -> None:
    ids = prompt(2, 25)
    scored = model(ids, conditioning=(torch.arange(25) < 7).expand(2, -1)).logits
    cache = WandCache(model.config, WINDOW)
    stepped = [model(p, past_key_values=cache, use_cache=True).logits for p in ids.split([7] + [1] * 18, 1)]
    assert torch.allclose(scored, torch.cat(stepped, 1), atol=1e-4)


@pytest.mark.parametrize("lengths", [(7, 7), (4, 7)], ids=["even", "ragged"])
@pytest.mark.parametrize("prefill", [[7], [4, 3]], ids=["whole", "chunks"])
def test_gradients_reach_back_through_the_cache(
    model: PreTrainedModel, prefill: list[int], lengths: tuple[int, int]
) -> None:
    """From the last logits to the prompt and the tokens decoded before: the same as in one pass over everything."""
    length = 7 + WINDOW + 3
    conditioning = torch.arange(length) < torch.tensor(lengths)[:, None]
    embedded = model.get_input_embeddings()(prompt(2, length)).detach()
    whole, stepped = embedded.clone().requires_grad_(), embedded.clone().requires_grad_()
    model(inputs_embeds=whole, conditioning=conditioning).logits[:, -1].square().mean().backward()
    cache = WandCache(model.config, WINDOW, conditioning=conditioning[:, :7])
    for part in stepped.split(prefill + [1] * (length - 7), 1):
        logits = model(inputs_embeds=part, past_key_values=cache, use_cache=True).logits
    logits[:, -1].square().mean().backward()
    assert whole.grad is not None
    assert stepped.grad is not None
    assert whole.grad.abs().amax((0, 2)).min() > 1e-3
    assert torch.allclose(stepped.grad, whole.grad, rtol=1e-4, atol=1e-4)

    kinds = torch.cat([conditioning, conditioning[:, -1:]], 1)
    with torch.no_grad():  # and on without gradients
        expected = model(inputs_embeds=torch.cat([embedded, embedded[:, -1:]], 1), conditioning=kinds).logits[:, -1:]
        logits = model(inputs_embeds=embedded[:, -1:], past_key_values=cache, use_cache=True).logits
    assert torch.allclose(logits, expected, atol=1e-4)


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # peft asks transformers for its old name
def test_a_peft_model_converts() -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(QWEN2.build(), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    expected = generate(convert(QWEN2.build(), WINDOW), ids := prompt()).sequences
    convert(adapted, WINDOW)
    assert torch.equal(generate(adapted.eval(), ids).sequences, expected)
    adapted.train()(input_ids=ids, labels=ids, conditioning=torch.arange(7).expand(2, -1) < 3).loss.backward()
    assert any(p.grad is not None for name, p in adapted.named_parameters() if "lora" in name)
    restore(adapted)
    assert torch.equal(generate(adapted.eval(), ids).sequences, generate(QWEN2.build(), ids).sequences)


def test_gradients_of_the_values_alone(model: PreTrainedModel) -> None:
    """LoRA on queries and values, as PEFT has it by default: the first layer's keys need no gradient."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    tuned = get_peft_model(model, lora).eval()
    ids, cache = prompt(2, 25), WandCache(model.config, WINDOW)
    conditioning = (torch.arange(25) < 7).expand(2, -1)
    scored = tuned(input_ids=ids, conditioning=conditioning).logits
    stepped = [tuned(input_ids=p, past_key_values=cache, use_cache=True).logits for p in ids.split([7] + [1] * 18, 1)]
    assert torch.allclose(scored, torch.cat(stepped, 1), atol=1e-4)


def test_a_stock_trainer_trains(tmp_path: Path) -> None:
    """transformers' own Trainer: its loss is that of the dense mask, and the window stays under the model."""
    model, ids = QWEN2.build(), prompt(4, 20)
    labels = ids.masked_fill(torch.arange(20) < 5, -100)
    conditioning = (torch.arange(20) < 5).expand(4, -1)
    mask = dense_masks(conditioning, torch.zeros_like(conditioning), WINDOW, QWEN2.limits)
    expected = float(model(ids, labels=labels, attention_mask=mask).loss.detach())
    convert(model, WINDOW)
    before = model.lm_head.weight.detach().clone()
    rows = zip(ids, labels, conditioning, strict=True)
    arguments = TrainingArguments(
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=4,
        remove_unused_columns=False,  # or it takes `conditioning` away, which the model's own forward does not name
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    samples = [dict(zip(("input_ids", "labels", "conditioning"), row, strict=True)) for row in rows]
    assert Trainer(model, arguments, train_dataset=samples).train().training_loss == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(model.lm_head.weight, before)
    assert isinstance(generate(model.eval(), ids, 2).past_key_values, WandCache)


@pytest.mark.filterwarnings(
    "ignore:You are calling .generate:UserWarning"
)  # transformers 5.17, of weights that are away
@pytest.mark.parametrize("first", ["convert", "offload"])
def test_accelerate_may_come_before_or_after(first: str) -> None:
    """It replaces the forward of every module; the weights are away between calls."""
    model, ids = QWEN2.build(), prompt()
    expected = generate(convert(copy.deepcopy(model), WINDOW), ids).sequences
    for change in (lambda: convert(model, WINDOW), lambda: cpu_offload(model, torch.device("cpu")))[
        :: 1 if first == "convert" else -1
    ]:
        change()
    assert model.lm_head.weight.device.type == "meta"
    assert torch.equal(generate(model, ids).sequences, expected)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_are_independent(model: PreTrainedModel, duplicate: Any) -> None:
    ids = prompt()
    twin = duplicate(model)
    expected = generate(model, ids).sequences
    assert torch.equal(generate(twin, ids).sequences, expected)
    restore(set_window(twin, window=2))
    assert torch.equal(generate(model, ids).sequences, expected)
    assert isinstance(generate(model, ids).past_key_values, WandCache)


# ---------------------------------------------------------------------------------------------------------- refusals


def tiny_bark() -> BarkSemanticModel:
    return BarkSemanticModel(
        BarkSemanticConfig(num_layers=1, num_heads=2, hidden_size=8, input_vocab_size=9, output_vocab_size=9)
    )


def tiny_t5() -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )


@pytest.mark.parametrize(
    ("build", "window", "message"),
    [
        (tiny_t5, 8, "encoder-decoder.*ForCausalLM"),
        (tiny_bark, 8, "attention of its own.*AttentionInterface"),
        (QWEN2.build, 0, "at least 1"),
        (lambda: convert(QWEN2.build(), 5), 8, r"window of 5.*set_window.*restore"),
        (lambda: nn.Linear(2, 2), 8, "not a transformers model.*causal decoder inside"),
    ],
    ids=["encoder-decoder", "bark", "window", "twice", "no-model"],
)
def test_a_refused_model_is_untouched(build: Any, window: int, message: str) -> None:
    model = build()
    before = {name: (set(vars(module)), len(module._forward_pre_hooks)) for name, module in model.named_modules()}
    with pytest.raises(ValueError, match=message):
        convert(model, window)
    assert before == {
        name: (set(vars(module)), len(module._forward_pre_hooks)) for name, module in model.named_modules()
    }


def test_linear_attention_is_refused() -> None:
    model = QWEN2.build()
    model.config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    with pytest.raises(ValueError, match="layer 1 of qwen2 is of type 'linear_attention'"):
        convert(model)
    model.config.layer_types = None
    model.config.layers_block_type = ["recurrent", "recurrent", "attention"]  # as RecurrentGemma has it on 5.17
    with pytest.raises(ValueError, match="layer 0 of qwen2 is of type 'recurrent'"):
        convert(model)
    assert not hasattr(base_decoder(model), "wand")


def test_flash_attention_with_left_padding_is_refused(model: PreTrainedModel) -> None:
    ids, padding = left_padded()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="attn_implementation='sdpa'"):
        model(ids, attention_mask=(~padding).long(), use_cache=True)


@torch.no_grad()
def test_caches_of_other_kinds_are_refused(model: PreTrainedModel) -> None:
    used = DynamicCache(config=model.config)
    with full_attention(model):
        model(prompt(), past_key_values=used, use_cache=True)
    for cache in (used, StaticCache(config=model.config, max_cache_len=20)):
        with pytest.raises(ValueError, match="WandCache"):
            model(prompt(), past_key_values=cache, use_cache=True)


@pytest.mark.parametrize("call", [restore, set_window, lambda model: full_attention(model).__enter__()])
def test_a_model_without_window_is_named_as_such(call: Any) -> None:
    with pytest.raises(ValueError, match=r"wandlib\.convert"):
        call(QWEN2.build())


def test_tau_below_zero_is_refused(model: PreTrainedModel) -> None:
    for tau in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="0 or more"):
            set_window(model, tau=tau)


@pytest.mark.parametrize("wrong", [3.5, True, -1])
def test_a_token_that_is_none_is_refused(wrong: Any, tmp_path: Path) -> None:
    model = QWEN2.build()
    with pytest.raises(ValueError, match="conditioning_until, a token id, is a whole number, at least 0; got"):
        convert(model, WINDOW, conditioning_until=wrong)
    convert(model, WINDOW, conditioning_until=np.int64(3)).save_pretrained(tmp_path)
    assert load(tmp_path).config.wand == {"window": WINDOW, "conditioning_until": 3}


def test_load_from_a_subfolder(model: PreTrainedModel, tmp_path: Path) -> None:
    """The config, window and all, comes from where the weights come from."""
    model.save_pretrained(tmp_path / "sub")
    set_window(model, window=3).save_pretrained(tmp_path)
    loaded = load(tmp_path, subfolder="sub")
    assert loaded.config.wand["window"] == WINDOW
    assert torch.equal(
        generate(loaded, ids := prompt()).sequences, generate(set_window(model, window=WINDOW), ids).sequences
    )


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks by its old name
def test_load_an_adapter_from_a_subfolder(tmp_path: Path) -> None:
    """Adapter, config and base model are all in it."""
    from peft import LoraConfig, PeftModel, get_peft_model

    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
    adapted = convert(get_peft_model(QWEN2.build(), lora), WINDOW).eval()
    adapted.save_pretrained(tmp_path / "sub")
    complete_adapter(adapted, tmp_path / "sub")
    loaded = load(tmp_path, subfolder="sub")
    assert isinstance(loaded, PeftModel)
    assert torch.equal(generate(loaded, ids := prompt()).sequences, generate(adapted, ids).sequences)


def test_the_window_is_that_of_the_revision(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of a repository is asked for by the same words about where it is."""
    where = {"revision": "older", "token": "secret", "cache_dir": "cache"}
    model.config.architectures = [type(model).__name__]
    asked: dict[str, Any] = {}

    def answer(name: str, value: Any) -> Any:
        return lambda folder, **options: asked.update({name: options}) or value

    monkeypatch.setattr("wandlib.attention.conversion.AutoConfig.from_pretrained", answer("config", model.config))
    monkeypatch.setattr("wandlib.attention.adapters.find_adapter_config_file", answer("adapter", None))
    monkeypatch.setattr(type(model), "from_pretrained", answer("model", QWEN2.build()))
    assert load("no/repository", dtype=torch.float32, **where).config.wand["window"] == WINDOW
    assert asked == {"config": where, "adapter": where, "model": where | {"dtype": torch.float32}}


def test_a_folder_without_window_is_refused(tmp_path: Path) -> None:
    QWEN2.build().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="from_pretrained, then convert"):
        load(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        ("model.layers.1.self_attn.k_proj.bias", "layer 1, in its keys"),
        ("model.layers.1.self_attn.v_proj.bias", "layer 1, in its values"),
        ("model.layers.0.mlp.down_proj.weight", "layer 0, in its output"),
        ("model.norm.weight", "output of layer 2, the last norm and the head"),
        ("lm_head.weight", "output of layer 2, the last norm and the head"),
    ],
)
def test_logits_that_are_not_finite_stop_generation(
    model: PreTrainedModel, spoil: str, where: str, value: float
) -> None:
    """Healthy for the prompt and two steps, then one weight goes bad."""
    cache = WandCache(model.config, WINDOW)
    for part in prompt(1, 9).split([7, 1, 1], 1):
        model(part, past_key_values=cache, use_cache=True)
    model.get_parameter(spoil).data.flatten()[0] = value
    with pytest.raises(FloatingPointError, match=f"generation step 3 are not finite.*{where}"):
        model(prompt(1, 1), past_key_values=cache, use_cache=True)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks by its old name
@pytest.mark.parametrize("check_finite", [True, False])
def test_logits_of_an_adapter_that_are_not_finite_stop_generation(check_finite: bool) -> None:
    """PEFT's generate calls the inner model past the wrapper."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(QWEN2.build(), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).eval()
    convert(adapted, WINDOW, check_finite=check_finite)
    adapted.get_base_model().model.norm.weight.data[0] = float("nan")
    if check_finite:
        with pytest.raises(FloatingPointError, match="generation step 0 are not finite"):
            generate(adapted, prompt(), 2)
        restore(adapted)
    generate(adapted, prompt(), 2)


# ------------------------------------------------------------------------------------------------- finding the decoder


def test_the_backbone_of_a_speech_model_is_found() -> None:
    """The decoder that speaks, not the codec and not the one that fills in codebooks; built without memory."""
    with torch.device("meta"):
        csm = CsmForConditionalGeneration(CsmConfig(**SHAPE | {"num_codebooks": 2}))
        assert base_decoder(csm) is csm.backbone_model
        vibevoice = VibeVoiceForConditionalGeneration(VibeVoiceConfig(text_config=SHAPE | {"model_type": "qwen2"}))
        assert base_decoder(vibevoice) is vibevoice.model.language_model
        convert(vibevoice)


def test_gradients_reach_a_prompt_where_nothing_after_it_has_any(model: PreTrainedModel) -> None:
    """A soft prompt in front of a frozen model: what follows it are ids."""
    frozen = copy.deepcopy(model).requires_grad_(False)
    ids = prompt(2, 6 + WINDOW)
    conditioning = (torch.arange(6 + WINDOW) < 6).expand(2, -1)
    embedded = frozen.get_input_embeddings()(ids)
    whole, stepped = embedded[:, :6].clone().requires_grad_(), embedded[:, :6].clone().requires_grad_()
    both = torch.cat([whole, embedded[:, 6:]], 1)
    frozen(inputs_embeds=both, conditioning=conditioning).logits[:, 5:].square().mean().backward()
    cache = WandCache(frozen.config, WINDOW)
    logits = [frozen(inputs_embeds=stepped, past_key_values=cache, use_cache=True).logits[:, -1:]]
    logits += [frozen(one, past_key_values=cache, use_cache=True).logits for one in ids[:, 6:].split(1, 1)]
    torch.cat(logits, 1).square().mean().backward()
    assert whole.grad is not None
    assert stepped.grad is not None
    assert torch.allclose(stepped.grad, whole.grad, rtol=1e-4, atol=1e-4)
