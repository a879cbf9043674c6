"""A tiny IndexTTS 1.5 checkpoint with random weights, in the published layout.

``python -m wandlib.systems.indextts.tiny FOLDER`` writes every file that the loader asks for, below 2 MB. What it
says is noise; what runs is the whole path.
"""

from __future__ import annotations

import io
import string
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from wandlib.systems.acoustics.weight_norm import unfold_weight_norm
from wandlib.systems.indextts.checkpoint import language_config
from wandlib.systems.indextts.codec import MelCodec
from wandlib.systems.indextts.language_model import IndexLM
from wandlib.systems.indextts.vocoder import Vocoder
from wandlib.systems.indextts.voice_encoder import VoiceEncoder

SPEAKER = {"channels": 16, "features": 24, "gate": 8, "attention": 8}
SETTINGS: dict[str, Any] = {
    "version": 1.5,
    "dataset": {"bpe_model": "bpe.model", "sample_rate": 24000, "squeeze": False},
    "gpt": {
        "model_dim": 32,
        "max_mel_tokens": 80,
        "max_text_tokens": 130,
        "heads": 4,
        "use_mel_codes_as_input": True,
        "mel_length_compression": 1024,
        "layers": 2,
        "number_text_tokens": 72,
        "number_mel_codes": 66,
        "start_mel_token": 64,
        "stop_mel_token": 65,
        "start_text_token": 0,
        "stop_text_token": 1,
        "train_solo_embeddings": False,
        "condition_type": "conformer_perceiver",
        "condition_module": {
            "output_size": 8,
            "linear_units": 16,
            "attention_heads": 2,
            "num_blocks": 2,
            "input_layer": "conv2d2",
            "perceiver_mult": 2,
        },
    },
    "vqvae": {
        "channels": 100,
        "num_tokens": 64,
        "hidden_dim": 8,
        "num_resnet_blocks": 1,
        "codebook_dim": 8,
        "num_layers": 2,
        "positional_dims": 1,
        "kernel_size": 3,
        "smooth_l1_loss": True,
        "use_transposed_convs": False,
    },
    "bigvgan": {
        "resblock": "1",
        "upsample_rates": [4, 4, 4, 4, 2, 2],
        "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
        "upsample_initial_channel": 64,
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "feat_upsample": False,
        "speaker_embedding_dim": 16,
        "cond_d_vector_in_each_upsampling_layer": True,
        "gpt_dim": 32,
        "activation": "snakebeta",
        "snake_logscale": True,
        "num_mels": 100,
    },
    "dvae_checkpoint": "dvae.pth",
    "gpt_checkpoint": "gpt.pth",
    "bigvgan_checkpoint": "bigvgan_generator.pth",
}
"""Settings: the published ones, made small."""


def write_checkpoint(folder: str | Path, *, seed: int = 0, speaker: dict[str, int] | None = None) -> Path:
    """Write the checkpoint; returns its folder.

    Parameters
    ----------
    seed
        Of the random weights.
    speaker
        Widths of the vocoder's speaker encoder, in place of the smallest ones.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    torch.manual_seed(seed)
    gpt = SETTINGS["gpt"]
    model, voice = IndexLM(language_config(gpt)), VoiceEncoder(gpt["model_dim"], gpt["condition_module"])
    with torch.no_grad():
        # Louder than GPT-2's start, so that what comes next depends on what came before.
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)
        model.mel_head.bias[gpt["stop_mel_token"]] = -4.0  # a search for the likeliest sequence ends at once otherwise
    torch.save({"model": {**model.state_dict(), **voice.state_dict()}}, root / "gpt.pth")
    codec = MelCodec(SETTINGS["vqvae"])
    codec.codebook.embed.normal_()
    vocoder = Vocoder(SETTINGS["bigvgan"], SPEAKER if speaker is None else speaker)
    normalized = {
        f"{name}.weight"
        for name, module in vocoder.named_modules()
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)
        and name.startswith(("conv_pre", "conv_post", "ups.", "resblocks."))
    }
    torch.save({"generator": unfold_weight_norm(vocoder.state_dict(), normalized)}, root / "bigvgan_generator.pth")
    torch.save(codec.state_dict(), root / "dvae.pth")
    _write_pieces(root / "bpe.model", gpt["number_text_tokens"])
    return root


def _write_pieces(path: Path, size: int) -> None:
    """Write a sentencepiece model of single letters and a few pairs; ids 0 and 1 are start and end, as published."""
    import sentencepiece

    letters = string.ascii_uppercase + ".,!?'-…"
    sentences = [f"{first}{second} {second}{first}" for first in letters for second in letters]
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=trained,
        vocab_size=size,
        model_type="bpe",
        character_coverage=1.0,
        normalization_rule_name="identity",
        bos_id=0,
        eos_id=1,
        unk_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    path.write_bytes(trained.getvalue())


if __name__ == "__main__":
    write_checkpoint(sys.argv[1])
