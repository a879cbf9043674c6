"""The paper's numbers, and the bytes that a cache really holds."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from families import Family, families
from family_sweep import CURRENT, documented, judge
from hypothesis import given
from hypothesis import strategies as st
from naive import naive_visible, steady
from tiny_models import LANGUAGE_MODELS, SHAPE, SPEECH_DECODERS, VOCABULARY, Tiny
from transformers import GPT2Config, MistralConfig, PreTrainedConfig, Qwen2Config

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import convert
from wandlib.attention.models import base_decoder, cache_argument, cache_inputs
from wandlib.profiling.estimate import attention_flops, cache_bytes

QWEN_05B = Qwen2Config(hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2)
INDEXTTS = GPT2Config(n_embd=1280, n_layer=24, n_head=20)
GEMMA3 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "gemma3")


@pytest.mark.parametrize(
    ("config", "conditioning", "generated", "window", "published"),
    [(QWEN_05B, 187, 250, 32, 49.9), (INDEXTTS, 79, 250, 32, 66.3), (QWEN_05B, 221, 500, 64, 60.5)],
    ids=["cosyvoice2", "indextts", "sparktts"],
)
def test_reductions_of_the_paper(
    config: PreTrainedConfig, conditioning: int, generated: int, window: int, published: float
) -> None:
    """Table 1 of arXiv 2604.08558, at the mean prefix that its numbers imply."""
    full, windowed = (
        cache_bytes(config, conditioning=conditioning, generated=generated, window=w) for w in (None, window)
    )
    assert 100 * (1 - windowed / full) == pytest.approx(published, abs=0.1)


@pytest.mark.parametrize(("window", "published"), [(None, 6.18e9), (32, 3.28e9)])
def test_flops_of_the_paper(window: int | None, published: float) -> None:
    """IndexTTS 1.5 in table 1 of arXiv 2604.08558."""
    assert attention_flops(INDEXTTS, conditioning=79, generated=250, window=window) == pytest.approx(
        published, rel=0.03
    )


def test_bytes_per_token_of_the_three_systems() -> None:
    """K and V in 16 bit: 12,288 B for the Qwen2 systems, 122,880 B for IndexTTS."""
    for config, expected in ((QWEN_05B, 12288), (INDEXTTS, 122880)):
        assert cache_bytes(config, conditioning=1, generated=0, dtype=torch.bfloat16) == expected


def test_beams_that_share_their_prompt() -> None:
    """Three beams: 3 (P + T) becomes P + 3 W."""
    one = cache_bytes(INDEXTTS, conditioning=1, generated=0)
    options = {"conditioning": 79, "generated": 250, "beams": 3}
    assert cache_bytes(INDEXTTS, **options) == 3 * (79 + 250) * one
    assert cache_bytes(INDEXTTS, **options, shared=True) == (79 + 3 * 250) * one
    assert cache_bytes(INDEXTTS, **options, window=32, shared=True, batch=2) == 2 * (79 + 3 * 32) * one


@torch.no_grad()
@pytest.mark.parametrize("tiny", LANGUAGE_MODELS + SPEECH_DECODERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_holds_what_accounting_says(tiny: Tiny, dtype: torch.dtype) -> None:
    """To the byte, from the step at which the ring is full."""
    model = convert(tiny.build().to(dtype), 6)
    cache = WandCache(model.config, 6)
    decoder = base_decoder(model)
    decoder(inputs_embeds=torch.randn(2, 5, 32, dtype=dtype), use_cache=True, **cache_inputs(decoder, cache))
    for generated in range(1, 9):
        decoder(inputs_embeds=torch.randn(2, 1, 32, dtype=dtype), use_cache=True, **cache_inputs(decoder, cache))
        if generated >= 6:
            expected = cache_bytes(model.config, conditioning=5, generated=generated, window=6, dtype=dtype, batch=2)
            assert cache.nbytes == expected


TEXTS = [4, 9, 2, 7, 8, 3, 1, 12, 1, 2]


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 2, 3, 20])
@pytest.mark.parametrize("options", [{}, {"int8": True}, {"dtype": torch.bfloat16}], ids=str)
def test_a_cache_whose_blocks_expire_holds_what_accounting_says(blocks: int, options: dict[str, Any]) -> None:
    """To the byte after every block: room for the largest neighbors is made when they come, and kept."""
    pinned, window, dtype = 5, 4, options.get("dtype", torch.float32)
    model = convert(LANGUAGE_MODELS[0].build().to(dtype), window)
    cache = WandCache(model.config, window, pinned=pinned, blocks=blocks, int8="int8" in options)
    for number, text in enumerate(TEXTS):
        ids = torch.randint(1, VOCABULARY, (2, text + (0 if number else pinned)))
        told = {"conditioning": torch.ones_like(ids, dtype=torch.bool)}
        model(ids, **told, past_key_values=cache, use_cache=True)
        for _ in range(window):
            model(ids[:, :1], past_key_values=cache, use_cache=True)
        expected = cache_bytes(
            model.config,
            conditioning=pinned,
            generated=window * (number + 1),
            window=window,
            batch=2,
            text_blocks=TEXTS[: number + 1],
            blocks=blocks,
            **options,
        )
        assert cache.nbytes == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0, "text_blocks": [3]}, "the one under way included; got 0"),
        ({"text_blocks": [3]}, "go together"),
        ({"blocks": 2}, "go together"),
        (
            {"blocks": 2, "text_blocks": [3, 0]},
            "length of a text block, in tokens,.* at least 1; got 0",
        ),
        ({"blocks": 2, "text_blocks": [3], "window": None}, "give window"),
        ({"blocks": 2, "text_blocks": [3], "shared": True}, "leave out shared"),
    ],
    ids=str,
)
def test_blocks_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cache_bytes(QWEN_05B, **({"conditioning": 5, "generated": 9, "window": 4} | options))


ODD_WIDTHS: list[tuple[str, dict[str, Any]]] = [
    ("deepseek_v3", {"kv_lora_rank": 20, "v_head_dim": 12}),
    ("minicpm3", {"kv_lora_rank": 20, "v_head_dim": 12}),
    ("falcon", {}),
    ("falcon", {"new_decoder_architecture": True}),
    ("falcon", {"multi_query": False, "num_kv_heads": 4}),
    ("gpt_bigcode", {}),
    ("gemma4_text", {"global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": True}),
]
"""Families whose caches are not heads x head_dim in every layer, with sizes that cannot be mixed up."""
UNTOLD = "mimo_v2_flash"
"""The family whose config does not tell them all."""


def held_bytes(family: Family) -> tuple[int, PreTrainedConfig]:
    """Return the bytes that a cache holds after 9 conditioning tokens and 6 generated ones, and the config."""
    model: Any = convert(family.build(), 5)
    cache = WandCache(model.config)
    for new in torch.randint(2, 97, (1, 15)).split([9] + [1] * 6, 1):
        model(new, use_cache=True, **cache_inputs(model, cache))
    return cache.nbytes, model.config


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # models say much about tiny configs
@pytest.mark.parametrize(("name", "changes"), ODD_WIDTHS, ids=str)
def test_layers_of_unusual_widths(name: str, changes: dict[str, Any]) -> None:
    """A latent, one head for all, heads that differ from layer to layer."""
    held, config = held_bytes(Family(name, "", "", changes))
    assert cache_bytes(config, conditioning=9, generated=6, window=5) == held


def test_a_config_that_does_not_tell_is_refused() -> None:
    """MiMo-V2-Flash: its code doubles the key-value heads of sliding layers."""
    config = Family(UNTOLD, "", "", {}).build().config
    for count in (cache_bytes, attention_flops):
        with pytest.raises(ValueError, match="its config does not tell for every layer"):
            count(config, conditioning=9, generated=6)


EQUAL = {tuple(cell.strip() for cell in line.split("|")[1:4]) for line in documented()[1] if "| equal |" in line}


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [f for f in families() if (f.type, f.name, f.variant) in EQUAL], ids=str)
def test_every_family_holds_what_accounting_says(family: Family) -> None:
    if not CURRENT and judge(family).outcome != "equal":
        return
    held, config = held_bytes(family)
    with pytest.raises(ValueError, match="does not tell") if family.type == UNTOLD else nullcontext():
        assert cache_bytes(config, conditioning=9, generated=6, window=5) == held


def test_flops_follow_the_heads_of_each_layer() -> None:
    """2 x heads x (width of a key + width of a value) for each pair, whatever is cached."""
    latent = Family("deepseek_v3", "", "", {"qk_nope_head_dim": 12, "v_head_dim": 20}).build().config
    mixed = Family("gemma4_text", "", "", {"global_head_dim": 16, "layer_types": ["full_attention"] * 3}).build().config
    counted = Family("laguna", "", "", {"num_attention_heads_per_layer": [4, 8, 4]}).build().config
    tokens = {"conditioning": 1, "generated": 1}
    assert attention_flops(latent, **tokens) == 2 * 3 * 2 * 4 * (12 + 8 + 20)
    assert attention_flops(mixed, **tokens) == 2 * 3 * 2 * 4 * (16 + 16)
    assert attention_flops(counted, **tokens) == 2 * 2 * (4 + 8 + 4) * (8 + 8)


@torch.no_grad()
@pytest.mark.parametrize("tiny", [LANGUAGE_MODELS[0], GEMMA3], ids=str)
def test_full_attention_bytes_are_those_of_a_dynamic_cache(tiny: Tiny) -> None:
    model = tiny.build()
    for generated in (2, 20):
        ids = torch.randint(1, VOCABULARY, (1, 5))
        output = model.generate(ids, max_new_tokens=generated + 1, do_sample=False, return_dict_in_generate=True)
        held = getattr(output, cache_argument(model))
        actual = sum(layer.keys.nbytes + layer.values.nbytes for layer in held.layers)
        assert actual == cache_bytes(model.config, conditioning=5, generated=generated)


@steady
@given(st.integers(0, 14), st.integers(0, 14), st.integers(1, 9))
def test_flops_count_the_pairs_of_the_rule(conditioning: int, generated: int, window: int) -> None:
    """Own limits included: Gemma 3 mixes sliding and full layers."""
    config = GEMMA3.config()
    prefix = torch.arange(conditioning + generated)[None] < conditioning
    pairs = sum(
        int(naive_visible(prefix, torch.zeros_like(prefix), window, limit)[0, conditioning:].sum())
        for limit in GEMMA3.limits
    )
    expected = 4 * 4 * 8 * pairs
    assert attention_flops(config, conditioning=conditioning, generated=generated, window=window) == expected


@pytest.mark.parametrize("count", [cache_bytes, attention_flops])
def test_nonsense_is_refused(count: object) -> None:
    assert callable(count)
    for wrong in ({"conditioning": -1}, {"conditioning": 2.5}, {"generated": True}, {"batch": 0}, {"batch": -1}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name}.*whole number, at least [01]; got"):
            count(INDEXTTS, **{"conditioning": 1, "generated": 3} | wrong)
    assert type(count(INDEXTTS, conditioning=2.0, generated=3.0, window=4.0, batch=1.0)) is int
    with pytest.raises(ValueError, match="at least 1"):
        count(INDEXTTS, conditioning=1, generated=3, window=0)
    with pytest.raises(ValueError, match="option of the windowed cache"):
        cache_bytes(INDEXTTS, conditioning=1, generated=3, int8=True)


def test_beams_share_no_prompt_that_has_left_a_sliding_window() -> None:
    """A layer that remembers 63 of 1,100 tokens remembers generated ones alone, which beams do not share."""
    config = MistralConfig(**SHAPE | {"sliding_window": 64})
    sizes = {"conditioning": 100, "generated": 1000, "beams": 3}
    assert cache_bytes(config, **sizes, shared=True) == cache_bytes(config, **sizes)
    sizes["generated"] = 3
    entry = cache_bytes(config, conditioning=1, generated=0)
    assert cache_bytes(config, **sizes, shared=True) == (60 + 3 * 3) * entry
