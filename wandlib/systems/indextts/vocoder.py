"""BigVGAN on the language model's hidden states, in a reference's voice: 1024 samples a code, 24 kHz.

Lee et al., arXiv 2206.04658: transposed convolutions, and after each the mean of three residual blocks of dilated
convolutions whose activations are periodic and free of aliasing. Here the input is no mel spectrum but the hidden
states of the codes, and a speaker vector of the reference is added, through one linear map for each stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wandlib.systems.acoustics.antialias import AntiAliased
from wandlib.systems.acoustics.snake import SnakeBeta
from wandlib.systems.acoustics.weight_norm import fold_weight_norm
from wandlib.systems.base import InputError
from wandlib.systems.indextts.speaker import SpeakerEncoder, speaker_widths
from wandlib.systems.published import check_keys, read_pickle

REQUIRED = {
    "resblock": "1",
    "activation": "snakebeta",
    "snake_logscale": True,
    "feat_upsample": False,
    "cond_d_vector_in_each_upsampling_layer": True,
}
"""Settings of ``config.yaml`` that are fixed here: those of the published checkpoints."""

Signal = Float[Tensor, "batch channels time"]


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each after its own activation, added to the input."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
            for dilation in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations)
        self.activations = nn.ModuleList(AntiAliased(SnakeBeta(channels)) for _ in range(2 * len(dilations)))

    def forward(self, signal: Signal) -> Signal:
        for index, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            hidden = dilated(self.activations[2 * index](signal))
            signal = signal + plain(self.activations[2 * index + 1](hidden))
        return signal


class Vocoder(nn.Module):
    """Hidden states and a reference to sound.

    Parameters
    ----------
    settings
        The ``bigvgan`` part of ``config.yaml``.
    speaker
        Widths of the speaker encoder that the settings leave out.

    Raises
    ------
    InputError
        If a setting is not the published one.
    """

    def __init__(self, settings: Mapping[str, Any], speaker: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        for name, wanted in REQUIRED.items():
            if settings[name] != wanted:
                raise InputError(f"bigvgan.{name} is {settings[name]!r} in config.yaml; IndexTTS 1.5 has {wanted!r}")
        first, vector = settings["upsample_initial_channel"], settings["speaker_embedding_dim"]
        rates, kernels = settings["upsample_rates"], settings["upsample_kernel_sizes"]
        blocks = list(zip(settings["resblock_kernel_sizes"], settings["resblock_dilation_sizes"], strict=True))
        widths = [first >> (stage + 1) for stage in range(len(rates))]
        self.conv_pre = nn.Conv1d(settings["gpt_dim"], first, 7, padding=3)
        self.rates = tuple(rates)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose1d(2 * width, width, kernel, rate, padding=(kernel - rate) // 2))
            for width, rate, kernel in zip(widths, rates, kernels, strict=True)
        )
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, kernel, dilations) for width in widths for kernel, dilations in blocks
        )
        self.activation_post = AntiAliased(SnakeBeta(widths[-1]))
        self.conv_post = nn.Conv1d(widths[-1], 1, 7, padding=3)
        self.speaker_encoder = SpeakerEncoder(settings["num_mels"], vector, **(speaker or {}))
        self.cond_layer = nn.Conv1d(vector, first, 1)
        self.conds = nn.ModuleList(nn.Conv1d(vector, width, 1) for width in widths)

    @classmethod
    def load(cls, path: Path, settings: Mapping[str, Any]) -> Vocoder:
        """Read ``bigvgan_generator.pth``, strictly.

        Raises
        ------
        InputError
            If the file is damaged or does not fit ``settings``.
        """
        state = fold_weight_norm(read_pickle(path, "generator"))
        try:
            widths = speaker_widths(state)
        except KeyError as error:
            raise InputError(f"{path.name} has no {error}: it is not the generator of IndexTTS") from error
        with torch.device("meta"):
            vocoder = cls(settings, widths)
        check_keys(path, state, vocoder.state_dict())
        vocoder.load_state_dict(state, strict=True, assign=True)
        return vocoder.eval()

    @property
    def samples(self) -> int:
        """Samples a hidden state."""
        return math.prod(self.rates)

    def forward(
        self, states: Float[Tensor, "batch codes width"], mel: Float[Tensor, "batch bands time"]
    ) -> Float[Tensor, "batch samples"]:
        """Sound of hidden states in the voice of a log-mel spectrum, in [-1, 1]."""
        voice = self.speaker_encoder(mel)
        signal = self.conv_pre(states.transpose(1, 2)) + self.cond_layer(voice)
        parallel = len(self.resblocks) // len(self.ups)
        for stage, (upsample, condition) in enumerate(zip(self.ups, self.conds, strict=True)):
            signal = upsample(signal) + condition(voice)
            blocks = self.resblocks[stage * parallel : (stage + 1) * parallel]
            signal = sum(block(signal) for block in blocks) / parallel
        sound: Tensor = self.conv_post(self.activation_post(signal)).tanh()
        return sound.squeeze(1)
