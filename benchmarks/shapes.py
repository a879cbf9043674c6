"""The models that are measured: real sizes, random weights, for which time does not care.

Sizes from the upstream configurations, mean prompts from the cache sizes that the paper prints (arXiv 2604.08558,
table 1). Only the speech tokens stand in the vocabulary: text is embedded before decoding starts, and the head of
CosyVoice 2 is that of the speech tokens.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedConfig, PreTrainedModel, Qwen2Config

import wandlib

TEACHER = Path(wandlib.__file__).parent / "assets" / "mini" / "teacher"
NO_END: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
"""No token ends a decode before its time."""
QUICK: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 128,
}


@dataclass(frozen=True)
class Shape:
    """A decoder to measure."""

    name: str
    config: PreTrainedConfig
    prompt: int
    """Conditioning tokens, P."""
    rate: float
    """Generated tokens for a second of speech."""
    window: int = 32
    """Generated keys that a query sees, W."""
    beams: int = 1
    """Sequences that upstream decodes for one utterance."""

    def steps(self, seconds: float) -> int:
        """Decoding steps for so many seconds of speech."""
        return round(seconds * self.rate)

    def build(self, dtype: torch.dtype, device: str) -> tuple[PreTrainedModel, PreTrainedModel]:
        """Two models with the same random weights in the same memory: as it is, and with the window."""
        torch.manual_seed(0)
        stock = AutoModelForCausalLM.from_config(copy.deepcopy(self.config), dtype=dtype).eval().to(device)
        shared = {id(parameter): parameter for parameter in stock.parameters()}
        return stock, wandlib.convert(copy.deepcopy(stock, shared), window=self.window)


def cosyvoice2(quick: bool) -> Shape:
    """CosyVoice 2-0.5B: Qwen2, 24 x 896, 6561 speech tokens and 3 marks."""
    size = QUICK if quick else {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 6564,
    }  # fmt: skip
    config = Qwen2Config(**size, **NO_END, tie_word_embeddings=False, max_position_embeddings=32768)
    return Shape("CosyVoice 2", config, prompt=187, rate=_rate(25, quick))


def indextts(quick: bool) -> Shape:
    """IndexTTS 1.5: GPT-2, 24 x 1280, 8194 codes, learned positions that end after some 26 s."""
    small: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 128}
    size = small if quick else {"n_embd": 1280, "n_layer": 24, "n_head": 20, "vocab_size": 8194}
    config = GPT2Config(**size, **NO_END, n_positions=1024, tie_word_embeddings=False)
    return Shape("IndexTTS 1.5", config, prompt=79, rate=_rate(24000 / 1024, quick), beams=3)


def mini(quick: bool) -> Shape:
    """The embedded voice: Qwen2, 6 x 256."""
    config = Qwen2Config.from_pretrained(TEACHER)
    # Its 4096 positions are no limit to random weights.
    for name, value in (NO_END | (QUICK | {"layer_types": ["full_attention"] * 2} if quick else {})).items():
        setattr(config, name, value)
    return Shape("embedded voice", config, prompt=187, rate=_rate(25, quick))


def _rate(tokens: float, quick: bool) -> float:
    """A quick run takes one token for a second, so that every decode is that much shorter."""
    return 1 if quick else tokens
