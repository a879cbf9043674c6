"""A tiny random model of every kind the window must go under: the matrix that the tests of the core run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)
from transformers.models.csm.configuration_csm import CsmConfig
from transformers.models.csm.modeling_csm import CsmBackboneModel
from transformers.models.higgs_audio_v2 import HiggsAudioV2Config, HiggsAudioV2Model
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTalkerConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniTalkerModel

VOCABULARY = 97
LAYERS = 3
SLIDING = 12
"""The sliding window of the layers that have one of their own, in tokens."""
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,  # large, or random weights attend evenly and the window changes nothing
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


@dataclass(frozen=True)
class Tiny:
    """One row of the matrix."""

    name: str
    model: Callable[[PreTrainedConfig], PreTrainedModel]
    config: Callable[[], PreTrainedConfig]
    limits: tuple[int | None, ...] = (None,) * LAYERS
    """The sliding window that each layer has of its own."""

    def build(self, seed: int = 0, **options: Any) -> PreTrainedModel:
        torch.manual_seed(seed)
        config = self.config()
        for name, value in options.items():
            setattr(config, name, value)
        return self.model(config).eval()

    def __str__(self) -> str:
        return self.name


def shape(**changes: Any) -> dict[str, Any]:
    return SHAPE | changes


def gpt2() -> GPT2Config:
    return GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=LAYERS,
        n_head=4,
        n_positions=256,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )


def gemma3() -> Gemma3TextConfig:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return Gemma3TextConfig(**shape(sliding_window=SLIDING, layer_types=kinds, query_pre_attn_scalar=8))


def csm() -> CsmConfig:
    return CsmConfig(**shape(num_codebooks=2))


def higgs() -> HiggsAudioV2Config:
    return HiggsAudioV2Config(**SHAPE, audio_token_id=VOCABULARY - 1, audio_delay_token_id=VOCABULARY - 2)


def pocket_tts() -> PreTrainedConfig:
    from transformers.models.pocket_tts import PocketTTSConfig

    tokens = ["audio_prompt_token_id", "audio_latent_token_id", "audio_prompt_bos_token_id", "audio_bos_token_id"]
    ids = {name: VOCABULARY - 1 - n for n, name in enumerate(tokens)}
    options = {name: value for name, value in SHAPE.items() if name != "initializer_range"}
    return PocketTTSConfig(**options, **ids, flow_head_config={"condition_dim": 32})


def pocket_tts_model(config: PreTrainedConfig) -> PreTrainedModel:
    from transformers.models.pocket_tts import PocketTTSModel

    return PocketTTSModel(config)


def talker() -> Qwen2_5OmniTalkerConfig:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return Qwen2_5OmniTalkerConfig(**shape(embedding_size=32, rope_parameters=rope))


LANGUAGE_MODELS = [
    Tiny("llama", LlamaForCausalLM, lambda: LlamaConfig(**SHAPE)),
    Tiny("qwen2", Qwen2ForCausalLM, lambda: Qwen2Config(**SHAPE)),
    Tiny("qwen3", Qwen3ForCausalLM, lambda: Qwen3Config(**SHAPE)),
    Tiny("mistral", MistralForCausalLM, lambda: MistralConfig(**shape(sliding_window=SLIDING)), (SLIDING,) * LAYERS),
    Tiny("gpt2", GPT2LMHeadModel, gpt2),
    Tiny("gemma3", Gemma3ForCausalLM, gemma3, (SLIDING, None, SLIDING)),
    Tiny("phi3", Phi3ForCausalLM, lambda: Phi3Config(**SHAPE)),
    Tiny("olmo2", Olmo2ForCausalLM, lambda: Olmo2Config(**SHAPE)),
    Tiny("smollm3", SmolLM3ForCausalLM, lambda: SmolLM3Config(**SHAPE)),
]
"""Models with a head: stock ``generate`` runs on them."""

SPEECH_DECODERS = [
    Tiny("csm", CsmBackboneModel, csm),
    Tiny("higgs_audio_v2", HiggsAudioV2Model, higgs),
    Tiny("qwen2_5_omni_talker", Qwen2_5OmniTalkerModel, talker),
]
"""Decoders of transformers' own speech models: they take embeddings and give hidden states."""

if Version(transformers.__version__) >= Version("5.21"):  # the release that brought it
    SPEECH_DECODERS.append(Tiny("pocket_tts", pocket_tts_model, pocket_tts))
