"""Models to measure: real sizes, random weights, on which time does not depend.

The paper's systems are those of :mod:`wandlib.profiling.paper_systems`, the embedded voice is read from its own config.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, Qwen2Config

import wandlib
from wandlib.profiling import paper_systems
from wandlib.profiling.paper_systems import SHAPES

TEACHER = Path(wandlib.__file__).parent / "assets" / "mini" / "teacher"
NO_END: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, "tie_word_embeddings": False}
"""Settings of every config: no token ends a decode early."""
QUICK: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 128,
    "layer_types": ["full_attention"] * 2,
}
QUICK_GPT2: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 128}


@dataclass(frozen=True)
class Shape(paper_systems.Shape):
    """A decoder that can be built."""

    def build(self, dtype: torch.dtype, device: str) -> tuple[PreTrainedModel, PreTrainedModel]:
        """Build two models with the same random weights in the same memory: unconverted, and with the window."""
        torch.manual_seed(0)
        stock = AutoModelForCausalLM.from_config(copy.deepcopy(self.config), dtype=dtype).eval().to(device)
        shared = {id(parameter): parameter for parameter in stock.parameters()}
        return stock, wandlib.convert(copy.deepcopy(stock, shared), window=self.window)


def cosyvoice2(quick: bool) -> Shape:
    """Return the shape of CosyVoice 2-0.5B: Qwen2, 24 x 896, 6561 speech tokens and 3 marks."""
    return _shape(SHAPES["cosyvoice2"], NO_END | (QUICK if quick else {}), quick)


def indextts(quick: bool) -> Shape:
    """Return the shape of IndexTTS 1.5: GPT-2, 24 x 1280, 8194 codes."""
    return _shape(SHAPES["indextts"], NO_END | (QUICK_GPT2 if quick else {}), quick)


def mini(quick: bool) -> Shape:
    """Return the shape of the embedded voice: Qwen2, 6 x 256."""
    config = Qwen2Config.from_pretrained(TEACHER)
    known = paper_systems.Shape("embedded voice", config, conditioning=187, window=32, codes_per_second=25.0)
    options = NO_END | {"tie_word_embeddings": config.tie_word_embeddings}
    return _shape(known, options | (QUICK if quick else {}), quick)


def _shape(known: paper_systems.Shape, options: dict[str, Any], quick: bool) -> Shape:
    """Return a shape with other settings in its config; a quick one has one token a second, for short decodes."""
    config: PreTrainedConfig = copy.deepcopy(known.config)
    for name, value in options.items():
        setattr(config, name, value)
    rate = 1.0 if quick else known.codes_per_second
    return Shape(known.name, config, known.conditioning, known.window, rate, known.beams)
