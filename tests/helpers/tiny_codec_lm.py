"""A tiny NeuTTS and a tiny Llasa: the classes of transformers, random weights, the published tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    NeuCodecConfig,
    NeuCodecFeatureExtractor,
    NeuCodecModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Wav2Vec2BertConfig,
    Xcodec2Config,
    Xcodec2FeatureExtractor,
    Xcodec2Model,
)

from wandlib.systems.codec_lm.dialects import END, START
from wandlib.systems.codec_lm.system import LlasaSystem, NeuTTSSystem
from wandlib.systems.codec_lm.training import CodecLMTraining

CODES = 64
assert CodecLMTraining.window, "imported here, before a test shortens the context that it takes from the system"
SYSTEMS = {"neutts": NeuTTSSystem, "llasa": LlasaSystem}
CHAT = (
    "{% for message in messages %}<|start|>{{ message['role'] }}<|stop|>{{ message['content'] }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|stop|>{% endif %}"
)
CLASSES: dict[str, Any] = {
    "neutts": (Qwen2Config, Qwen2ForCausalLM, NeuCodecConfig, NeuCodecModel, NeuCodecFeatureExtractor),
    "llasa": (LlamaConfig, LlamaForCausalLM, Xcodec2Config, Xcodec2Model, Xcodec2FeatureExtractor),
}


def write(name: str, folder: Path) -> tuple[Path, Path]:
    """Folders of the language model and of the codec."""
    torch.manual_seed(0)
    config_class, model_class, codec_config_class, codec_class, extractor_class = CLASSES[name]
    language, codec = folder, folder / "codec"
    language.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [f"<|TEXT_{kind}_{side}|>" for kind in ("PROMPT", "UNDERSTANDING") for side in ("START", "END")]
    codes = [SYSTEMS[name].dialect.code.format(index) for index in range(CODES)]
    tokenizer.add_tokens([*special, START, END, "<|start|>", "<|stop|>", "<|eot|>", *codes])
    tokenizer.save(str(language / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|eot|>", "chat_template": CHAT}
    (language / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    model_class(
        config_class(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.token_to_id("<|eot|>"),
        )
    ).save_pretrained(language)
    semantic = Wav2Vec2BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        feature_projection_input_dim=160,
        conv_depthwise_kernel_size=3,
    )
    codec_class(
        codec_config_class(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            encoder_hidden_size=4,
            quantization_dim=48,
            quantization_levels=[4, 4, 4],
            semantic_model_config=semantic.to_dict(),
        )
    ).save_pretrained(codec)
    extractor_class().save_pretrained(codec)
    return language, codec
