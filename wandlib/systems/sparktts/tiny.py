"""A tiny Spark-TTS checkpoint with random weights, in the published layout.

``python -m wandlib.systems.sparktts.tiny FOLDER`` writes every file that the loader asks for, about 1 MB. What it says
is noise; what runs is the whole path.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from wandlib.systems.acoustics.weight_norm import unfold_weight_norm
from wandlib.systems.sparktts.bicodec import BiCodec
from wandlib.systems.sparktts.checkpoint import WAV2VEC
from wandlib.systems.sparktts.prompt import START_CODES

CODES, LEVELS, TOKENS = 64, [4, 4, 4], 8
"""Semantic codes, levels of the global tokens (64 of them), global tokens an utterance."""
END = "<|im_end|>"
SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|task_tts|> <|task_controllable_tts|> <|start_content|> <|end_content|> "
    "<|start_global_token|> <|end_global_token|> <|start_style_label|> <|end_style_label|> <|end_semantic_token|>"
).split()

CODEC: dict[str, Any] = {
    "mel_params": {
        "sample_rate": 16000,
        "n_fft": 1024,
        "win_length": 640,
        "hop_length": 320,
        "mel_fmin": 10,
        "mel_fmax": None,
        "num_mels": 32,
    },
    "encoder": {
        "input_channels": 16,
        "vocos_dim": 12,
        "vocos_intermediate_dim": 24,
        "vocos_num_layers": 2,
        "out_channels": 16,
        "sample_ratios": [1, 1],
    },
    "quantizer": {
        "input_dim": 16,
        "codebook_size": CODES,
        "codebook_dim": 8,
        "commitment": 0.25,
        "codebook_loss_weight": 2.0,
        "use_l2_normlize": True,
        "threshold_ema_dead_code": 0.2,
    },
    "decoder": {"input_channel": 16, "channels": 32, "rates": [8, 5, 4, 2], "kernel_sizes": [16, 11, 8, 4]},
    "speaker_encoder": {
        "input_dim": 32,
        "out_dim": 16,
        "latent_dim": 8,
        "token_num": TOKENS,
        "fsq_levels": LEVELS,
        "fsq_num_quantizers": 1,
    },
    "prenet": {
        "input_channels": 16,
        "vocos_dim": 12,
        "vocos_intermediate_dim": 24,
        "vocos_num_layers": 2,
        "out_channels": 16,
        "condition_dim": 16,
        "sample_ratios": [1, 1],
        "use_tanh_at_final": False,
    },
    "postnet": {
        "input_channels": 16,
        "vocos_dim": 12,
        "vocos_intermediate_dim": 24,
        "vocos_num_layers": 2,
        "out_channels": 16,
        "use_tanh_at_final": False,
    },
}
"""Settings of the codec: the published ones, made small."""


def write_checkpoint(
    folder: str | Path, *, seed: int = 0, codec: dict[str, Any] | None = None, speaker: dict[str, int] | None = None
) -> Path:
    """Write the checkpoint; returns its folder.

    Parameters
    ----------
    seed
        Of the random weights.
    codec, speaker
        Settings of the codec, and widths of its speaker encoder, in place of the smallest ones.
    """
    root = Path(folder)
    settings = codec or CODEC
    torch.manual_seed(seed)
    _write_language_model(root / "LLM", settings)
    _write_codec(root / "BiCodec", settings, speaker or {"channels": 16, "bottleneck": 8, "features": 48})
    _write_wav2vec(root / WAV2VEC, settings["encoder"]["input_channels"])
    top = {
        "highpass_cutoff_freq": 40,
        "sample_rate": 16000,
        "segment_duration": 2.4,
        "max_val_duration": 12,
        "latent_hop_length": 320,
        "ref_segment_duration": 6,
        "volume_normalize": True,
    }
    (root / "config.yaml").write_text(yaml.safe_dump(top), encoding="utf-8")
    return root


def _write_language_model(folder: Path, settings: dict[str, Any]) -> None:
    """Write a byte-level tokenizer with the codec's tokens, and two layers of Qwen2 whose output favors them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = 1
    for level in settings["speaker_encoder"]["fsq_levels"]:
        tokens *= level
    names = [
        *SPECIAL,
        START_CODES,
        *(f"<|gender_{index}|>" for index in range(2)),
        *(f"<|{kind}_label_{index}|>" for kind in ("pitch", "speed") for index in range(5)),
        *(f"<|bicodec_global_{index}|>" for index in range(tokens)),
        *(f"<|bicodec_semantic_{index}|>" for index in range(settings["quantizer"]["codebook_size"])),
    ]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(names)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.2,
        eos_token_id=tokenizer.token_to_id(END),
        bos_token_id=tokenizer.token_to_id("<|endoftext|>"),
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)  # the published folder has none


def _write_codec(folder: Path, settings: dict[str, Any], speaker: dict[str, int]) -> None:
    """BiCodec with weight normalization, as published."""
    folder.mkdir(parents=True, exist_ok=True)
    codec = BiCodec(settings, speaker)
    state = codec.state_dict()
    normalized = {
        f"{name}.weight"
        for name, module in codec.named_modules()
        if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d)
        and name.startswith(("decoder.", "quantizer."))
    }
    state = unfold_weight_norm(state, normalized)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump({"audio_tokenizer": settings}), encoding="utf-8")


def _write_wav2vec(folder: Path, width: int) -> None:
    """As many layers as are read, each as narrow as can be."""
    config = Wav2Vec2Config(
        hidden_size=width,
        num_hidden_layers=18,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        vocab_size=32,
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    torch.save(Wav2Vec2Model(config).state_dict(), folder / "pytorch_model.bin")
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)


if __name__ == "__main__":
    write_checkpoint(sys.argv[1])
