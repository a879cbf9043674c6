"""A small IndexTTS with weights that any machine makes the same, and what goes into each of its parts."""

from __future__ import annotations

from typing import Any

import torch
from sinusoids import fill, fill_state, sinusoid
from torch import Tensor

from wandlib.systems.acoustics.resample import resample
from wandlib.systems.acoustics.weight_norm import fold_weight_norm, unfold_weight_norm
from wandlib.systems.indextts import tiny
from wandlib.systems.indextts.checkpoint import language_config
from wandlib.systems.indextts.codec import MelCodec
from wandlib.systems.indextts.decoding import generate
from wandlib.systems.indextts.features import LogMel
from wandlib.systems.indextts.language_model import IndexLM
from wandlib.systems.indextts.vocoder import Vocoder
from wandlib.systems.indextts.voice_encoder import VoiceEncoder

GPT: dict[str, Any] = {
    "model_dim": 32,
    "max_mel_tokens": 60,
    "max_text_tokens": 30,
    "heads": 4,
    "use_mel_codes_as_input": True,
    "mel_length_compression": 1024,
    "layers": 2,
    "activation_function": "gelu_pytorch_tanh",
    "number_text_tokens": 40,
    "number_mel_codes": 66,
    "start_mel_token": 64,
    "stop_mel_token": 65,
    "start_text_token": 0,
    "stop_text_token": 1,
    "train_solo_embeddings": False,
    "condition_type": "conformer_perceiver",
    "condition_module": {
        "output_size": 16,
        "linear_units": 32,
        "attention_heads": 2,
        "num_blocks": 2,
        "input_layer": "conv2d2",
        "perceiver_mult": 2,
    },
}
VQVAE: dict[str, Any] = tiny.SETTINGS["vqvae"] | {"num_resnet_blocks": 3, "hidden_dim": 16}
BIGVGAN: dict[str, Any] = tiny.SETTINGS["bigvgan"] | {"upsample_initial_channel": 128}
SOUND = 0.5 * sinusoid("sound", (1, 9000))
MEL = sinusoid("mel", (1, 100, 37)) - 4
TEXT = 2 + (sinusoid("text", (1, 7)).abs() * 38).long()
CODES = (sinusoid("codes", (1, 9)).abs() * 64).long()
LIMIT = 40
"""Codes to generate."""
STATES = sinusoid("states", (1, 3, 32))


def language_model() -> tuple[IndexLM, VoiceEncoder]:
    """Language model and voice encoder."""
    return fill(IndexLM(language_config(GPT))), fill(VoiceEncoder(GPT["model_dim"], GPT["condition_module"]))


def codec() -> MelCodec:
    """What makes codes of recordings."""
    built = MelCodec(VQVAE)
    fill(built)
    return built


def contrasts(frames: int) -> Tensor:
    """Frames that are not alike."""
    return 3 * sinusoid("contrasts", (1, 100, frames))


def published_vocoder_weights() -> dict[str, Tensor]:
    """Weights of the vocoder in the published form: gain and direction apart."""
    plain = Vocoder(BIGVGAN).state_dict()
    normalized = ("conv_pre.", "conv_post.", "ups.", "resblocks.")
    names = {name for name in plain if name.startswith(normalized) and name.endswith("weight")}
    return fill_state(unfold_weight_norm(plain, names), gain=0.7)


def vocoder() -> Vocoder:
    """Vocoder."""
    built = Vocoder(BIGVGAN)
    built.load_state_dict(fold_weight_norm(published_vocoder_weights()), strict=True)
    return built.eval()


@torch.no_grad()
def acoustic_outputs(voice: VoiceEncoder, decoder: Vocoder) -> dict[str, Tensor]:
    """What each acoustic part makes of its input."""
    frames, _ = voice.conditioning_encoder(MEL.transpose(1, 2))
    return {
        "resampled": resample(SOUND, 22_050, 24_000),
        "log mel": LogMel()(SOUND),
        "conformer": frames,
        "latents": voice(MEL),
        "speaker vector": decoder.speaker_encoder(MEL)[..., 0],
        "sound": decoder(STATES, MEL),
    }


@torch.no_grad()
def language_outputs(model: IndexLM, voice: VoiceEncoder) -> dict[str, Tensor]:
    """Hidden states for the vocoder, and codes without sampling."""
    latents = voice(MEL)
    found = {
        f"codes of {beams} beams": generate(model, latents, TEXT, limit=LIMIT, beams=beams, sampled=False, cache=None)
        for beams in (1, 3)
    }
    return {"states": model.states(latents, TEXT, CODES), **found}
