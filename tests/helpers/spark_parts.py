"""A small BiCodec with weights that any machine makes the same, and what goes into each of its parts."""

from __future__ import annotations

from typing import Any

import torch
from sinusoids import fill, sinusoid
from torch import Tensor

from wandlib.systems.acoustics.weight_norm import fold_weight_norm, unfold_weight_norm
from wandlib.systems.sparktts import tiny
from wandlib.systems.sparktts.bicodec import BiCodec, mel_spectrogram, without_training_only

SETTINGS: dict[str, Any] = {
    "mel_params": tiny.CODEC["mel_params"] | {"num_mels": 40},
    "encoder": {
        "input_channels": 24,
        "vocos_dim": 16,
        "vocos_intermediate_dim": 32,
        "vocos_num_layers": 3,
        "out_channels": 16,
        "sample_ratios": [2, 1],
    },
    "quantizer": {"input_dim": 16, "codebook_size": 64, "codebook_dim": 8},
    "decoder": {"input_channel": 16, "channels": 32, "rates": [8, 5, 4, 2], "kernel_sizes": [16, 11, 8, 4]},
    "speaker_encoder": {
        "input_dim": 40,
        "out_dim": 16,
        "latent_dim": 8,
        "token_num": 6,
        "fsq_levels": [4, 3, 5],
        "fsq_num_quantizers": 1,
    },
    "prenet": {
        "input_channels": 16,
        "vocos_dim": 16,
        "vocos_intermediate_dim": 32,
        "vocos_num_layers": 3,
        "out_channels": 16,
        "condition_dim": 16,
        "sample_ratios": [1, 3],
        "use_tanh_at_final": False,
    },
}
FEATURES = sinusoid("features", (2, 22, 24))
SOUND = 0.5 * sinusoid("sound", (2, 8000))
CODES = (sinusoid("codes", (2, 5)).abs() * 64).long()
TOKENS = (sinusoid("tokens", (2, 6)).abs() * 60).long()


def build(state: dict[str, Tensor] | None = None) -> BiCodec:
    """Our codec, with the weights of ``state`` (a published class's) or with its own."""
    codec = BiCodec(SETTINGS)
    if state is None:
        return fill(codec)
    codec.load_state_dict(fold_weight_norm(without_training_only(state)), strict=True)
    return codec.eval()


@torch.no_grad()
def outputs(codec: BiCodec) -> dict[str, Tensor]:
    """What each part makes of its input."""
    mel = mel_spectrogram(SETTINGS)(SOUND)
    voice = codec.speaker_encoder.decode(TOKENS)
    frames = codec.quantizer.decode(CODES)
    prenet = codec.prenet(frames, voice)
    codes, tokens = codec.encode(FEATURES, mel)
    return {
        "mel": mel,
        "encoder": codec.encoder(FEATURES.transpose(1, 2)),
        "ecapa": codec.speaker_encoder.speaker_encoder(mel),
        "codes": codes,
        "global tokens": tokens,
        "speaker vector": voice,
        "quantizer": frames,
        "prenet": prenet,
        "sound": codec.decode(CODES, TOKENS),
    }


def published_weights() -> dict[str, Tensor]:
    """Weights in the published form: gain and direction apart."""
    plain = build().state_dict()
    names = {n for n in plain if n.endswith("weight") and plain[n].ndim == 3 and n.startswith(("decoder", "quantizer"))}
    split = unfold_weight_norm(plain, names)
    for name, tensor in split.items():
        wave = sinusoid(name, tensor.shape)
        if name.endswith("weight_g"):
            split[name] = 0.3 + 0.1 * wave  # small enough that tanh at the end does not saturate
        elif name.endswith("weight_v"):
            split[name] = wave
    return split
