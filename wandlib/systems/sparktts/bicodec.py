"""BiCodec: speech as 50 semantic codes a second and 32 global tokens, and back.

    codes   = quantizer(encoder(wav2vec features))        what is said, 50/s
    tokens  = FSQ(perceiver(ECAPA(mel of 6 s)))           who says it, 32 in all
    sound   = generator(prenet(codes; d) + d),            d = speaker vector of the tokens, 16 kHz

Wang et al., "Spark-TTS", arXiv 2503.01710. Written from the paper, ``BiCodec/config.yaml`` and the names in the
checkpoint; equal to the published code on random weights (``docs/systems.md``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn

from wandlib.systems.acoustics.mel import MelSpectrogram
from wandlib.systems.acoustics.weight_norm import fold_weight_norm
from wandlib.systems.published import check_keys
from wandlib.systems.sparktts.semantic import Encoder, FactorizedQuantizer, Prenet
from wandlib.systems.sparktts.speaker import SpeakerEncoder
from wandlib.systems.sparktts.wave_generator import WaveGenerator

TRAINING_ONLY = (
    "postnet.",
    "mel_transformer.",
    "quantizer.cluster_size",
    *(f"speaker_encoder.speaker_encoder.{part}." for part in ("pool", "bn", "linear")),
)
"""What of the published checkpoint inference does not use, and what can be computed from the settings."""


class BiCodec(nn.Module):
    """Speech to codes and global tokens, and back.

    Parameters
    ----------
    settings
        The ``audio_tokenizer`` part of ``BiCodec/config.yaml``.
    speaker
        Widths that the settings leave out: ``channels``, ``bottleneck`` and ``features`` of the speaker encoder.
    """

    def __init__(self, settings: Mapping[str, Any], speaker: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        quantizer, voice = settings["quantizer"], settings["speaker_encoder"]
        if voice.get("fsq_num_quantizers", 1) != 1:
            raise ValueError(
                f"BiCodec has one finite scalar quantizer, the settings ask for {voice['fsq_num_quantizers']}: check "
                "speaker_encoder.fsq_num_quantizers in BiCodec/config.yaml"
            )
        self.encoder = Encoder(**settings["encoder"])
        self.quantizer = FactorizedQuantizer(
            quantizer["input_dim"], quantizer["codebook_size"], quantizer["codebook_dim"]
        )
        widths: dict[str, Any] = {name: voice[name] for name in voice if name != "fsq_num_quantizers"}
        self.speaker_encoder = SpeakerEncoder(**widths, **(speaker or {}))
        self.prenet = Prenet(**settings["prenet"])
        self.decoder = WaveGenerator(**settings["decoder"])

    @classmethod
    def load(cls, folder: str | Path, settings: Mapping[str, Any]) -> BiCodec:
        """Read ``model.safetensors`` in ``folder``, in fp32 and strictly.

        Raises
        ------
        InputError
            If a tensor is missing, unknown or of another shape.
        """
        path = Path(folder) / "model.safetensors"
        state = fold_weight_norm(without_training_only(load_file(path)))
        with torch.device("meta"):
            codec = cls(settings, speaker_widths(state))
        check_keys(path, state, codec.state_dict())
        codec.load_state_dict(state, strict=True, assign=True)
        return codec.eval()

    def encode(
        self, features: Float[Tensor, "batch time features"], mel: Float[Tensor, "batch bands frames"]
    ) -> tuple[Int[Tensor, "batch codes"], Int[Tensor, "batch tokens"]]:
        """Semantic codes of wav2vec features, and global tokens of a mel spectrum (see :func:`mel_spectrogram`)."""
        return self.semantic(features), self.speaker_encoder.encode(mel)

    def semantic(self, features: Float[Tensor, "batch time features"]) -> Int[Tensor, "batch codes"]:
        """Semantic codes of wav2vec features."""
        codes: Tensor = self.quantizer.encode(self.encoder(features.transpose(1, 2)))
        return codes

    def decode(
        self, codes: Int[Tensor, "batch codes"], tokens: Int[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch samples"]:
        """Sound of semantic codes in the voice of global tokens, at 16 kHz."""
        voice = self.speaker_encoder.decode(tokens)
        sound: Tensor = self.decoder(self.prenet(self.quantizer.decode(codes), voice) + voice.unsqueeze(-1))
        return sound


def mel_spectrogram(settings: Mapping[str, Any]) -> MelSpectrogram:
    """Mel spectrum that the speaker encoder takes; ``settings`` as for :class:`BiCodec`."""
    mel = settings["mel_params"]
    return MelSpectrogram(
        mel["sample_rate"],
        mel["n_fft"],
        mel["win_length"],
        mel["hop_length"],
        mel["num_mels"],
        low=mel["mel_fmin"],
        high=mel["mel_fmax"],
        scale="slaney",
    )


def without_training_only(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the parts that inference uses."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(TRAINING_ONLY)}


def speaker_widths(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Widths of the speaker encoder that the settings leave out, read off the weights."""
    stem = "speaker_encoder.speaker_encoder"
    return {
        "channels": state[f"{stem}.layer1.conv.bias"].shape[0],
        "bottleneck": state[f"{stem}.layer2.se_res2block.3.linear1.bias"].shape[0],
        "features": state[f"{stem}.conv.bias"].shape[0],
    }
