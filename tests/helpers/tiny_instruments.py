"""Recognizers and speaker encoders of a few thousand random weights, in the layout of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torchaudio.models import Wav2Vec2Model, wav2vec2_model
from transformers import (
    GenerationConfig,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMForXVector,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
STAMPS = [f"<|{n * 0.02:.2f}|>" for n in range(1501)]
WAV2VEC2: dict[str, Any] = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [(8, 10, 5), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 2, 2), (8, 2, 2)],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 16,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 4,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 1,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 32,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.1,
}


def wav2vec2(labels: int | None = None) -> Wav2Vec2Model:
    torch.manual_seed(0)
    return wav2vec2_model(**WAV2VEC2, aux_num_out=labels).eval()


def whisper(folder: Path) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """A multilingual Whisper that can write "h", "i" and time stamps."""
    torch.manual_seed(0)
    (folder / "normalizer.json").write_text('{"color": "color"}', encoding="utf-8")
    vocabulary = {token: index for index, token in enumerate(["h", "i", "Ġ", *SPECIAL, *STAMPS])}
    tokenizer = WhisperTokenizer(
        vocab=vocabulary,
        merges=[],
        normalizer_file=str(folder / "normalizer.json"),
        additional_special_tokens=SPECIAL[1:],
    )
    ids = {token: vocabulary[token] for token in SPECIAL}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    tokens = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    layers = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
    }
    model = WhisperForConditionalGeneration(
        WhisperConfig(vocab_size=len(vocabulary), d_model=16, num_mel_bins=80, init_std=0.5, **layers, **tokens)
    )
    with torch.no_grad():  # letters before 1501 time stamps, and which of them is up to the rest of the weights
        model.model.decoder.layer_norm.bias[0] = 30.0
        model.model.decoder.embed_tokens.weight[:, 0] = 0.0
        model.model.decoder.embed_tokens.weight[:2, 0] = 1.0
    model.generation_config = GenerationConfig(
        **tokens,
        max_length=12,
        is_multilingual=True,
        lang_to_id={"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]},
        task_to_id={"transcribe": ids["<|transcribe|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        suppress_tokens=[vocabulary["Ġ"], *ids.values()],
    )
    return model.eval(), WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer)


def wavlm() -> tuple[WavLMForXVector, Wav2Vec2FeatureExtractor]:
    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(16, 16, 16, 16, 24),
        xvector_output_dim=12,
        num_buckets=8,
    )
    return WavLMForXVector(config).eval(), Wav2Vec2FeatureExtractor(do_normalize=True)
