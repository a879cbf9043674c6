"""The codec: 40 ms of speech to one of 4,375 codes and back, in the voice of a speaker vector.

    mel [frames, 80] -> 4 frames a step -> encoder -> finite scalar quantization -> code
    code -> decoder (told who speaks) -> mel [frames, 80], pitch, voicing

Finite scalar quantization (Mentzer et al., arXiv 2309.15505) rounds each of five numbers to a few levels: no
codebook to learn, none to collapse. As in CosyVoice 2, who speaks comes from the reference, through a vector, so
that codes are free to say what is spoken and how.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wandlib.systems.mini.features import BANDS, FRAMES_PER_CODE
from wandlib.systems.mini.layers import ConvNeXt

LEVELS = (7, 5, 5, 5, 5)
CODES = math.prod(LEVELS)
PITCH_HZ = 120.0
"""Pitch is carried as the natural logarithm of its ratio to this."""


class Acoustics(NamedTuple):
    """What the vocoder needs, 100 frames a second.

    Attributes
    ----------
    mel
        Normalized log-mel, [batch, frames, 80].
    pitch
        log(Hz / 120), meaningful where voiced, [batch, frames].
    voicing
        Probability that the frame is voiced, [batch, frames].
    """

    mel: Tensor
    pitch: Tensor
    voicing: Tensor


class FiniteScalarQuantizer(nn.Module):
    """Round each dimension to ``levels`` values in [-1, 1]; gradients pass straight through."""

    def __init__(self, levels: tuple[int, ...] = LEVELS) -> None:
        super().__init__()
        if any(level % 2 == 0 or level < 3 for level in levels):
            raise ValueError(f"levels must be odd and at least 3, not {levels}")
        self.reach: Tensor
        self.strides: Tensor
        self.register_buffer("reach", torch.tensor([level // 2 for level in levels]), persistent=False)
        strides = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("strides", torch.tensor(strides), persistent=False)

    def forward(self, values: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch dims"]:
        """Return quantized values; the gradient is that of tanh alone."""
        bounded = torch.tanh(values) * self.reach
        return (bounded + (bounded.round() - bounded).detach()) / self.reach

    def indices(self, quantized: Float[Tensor, "*batch dims"]) -> Int[Tensor, "*batch"]:
        """Return quantized values as one number each."""
        digits = (quantized * self.reach).round().long() + self.reach
        return (digits * self.strides).sum(-1)

    def values(self, indices: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch dims"]:
        """Return the inverse of :meth:`indices`."""
        levels = 2 * self.reach + 1
        digits = indices.unsqueeze(-1) // self.strides % levels
        return (digits - self.reach) / self.reach


class SpeakerEncoder(nn.Module):
    """A mel spectrum of any length to one vector that identifies the speaker."""

    def __init__(self, width: int, dims: int) -> None:
        super().__init__()
        self.enter = nn.Linear(BANDS * FRAMES_PER_CODE, width)
        self.blocks = nn.ModuleList([ConvNeXt(width, 2, 5) for _ in range(2)])
        self.leave = nn.Linear(2 * width, dims)

    def forward(self, mel: Float[Tensor, "batch frames 80"]) -> Float[Tensor, "batch dims"]:
        hidden = self.enter(stack(mel))
        for block in self.blocks:
            hidden = block(hidden)
        pooled = torch.cat((hidden.mean(1), hidden.std(1, correction=0)), dim=-1)
        return nn.functional.normalize(self.leave(pooled), dim=-1) * math.sqrt(self.leave.out_features)


class Codec(nn.Module):
    """Mel spectra to codes and back.

    Parameters
    ----------
    width
        Width of encoder and decoder.
    encoder_layers, decoder_layers
        Layers at 25 Hz.
    fine_width, fine_layers
        Width and layers of the decoder's last part, at 100 Hz.
    speaker_dims
        Length of the speaker vector.
    contrast
        How far :meth:`decode` moves each band away from the mean of its neighbors: above 1 it restores the
        formants that a decoder trained on absolute error smooths away. Not used in training.
    look_ahead
        How many codes after a code the decoder's layers at 25 Hz may depend on, all together; those at 100 Hz then see
        one frame each. None: each layer sees as much ahead as behind.
    """

    def __init__(
        self,
        width: int = 256,
        encoder_layers: int = 4,
        decoder_layers: int = 6,
        fine_width: int = 128,
        fine_layers: int = 2,
        speaker_dims: int = 64,
        contrast: float = 1.0,
        look_ahead: int | None = None,
    ) -> None:
        super().__init__()
        self.config = {
            "width": width,
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
            "fine_width": fine_width,
            "fine_layers": fine_layers,
            "speaker_dims": speaker_dims,
            "contrast": contrast,
            "look_ahead": look_ahead,
        }
        self.contrast = contrast
        self.speaker_encoder = SpeakerEncoder(128, speaker_dims)
        self.enter = nn.Linear(BANDS * FRAMES_PER_CODE, width)
        self.encoder = nn.ModuleList([ConvNeXt(width, condition=speaker_dims) for _ in range(encoder_layers)])
        self.to_code = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(LEVELS)))
        self.quantizer = FiniteScalarQuantizer()
        self.from_code = nn.Linear(len(LEVELS), width)
        self.decoder = nn.ModuleList(
            [ConvNeXt(width, condition=speaker_dims, ahead=ahead) for ahead in shares(look_ahead, decoder_layers)]
        )
        self.refine = nn.Linear(width, FRAMES_PER_CODE * fine_width)
        ahead = None if look_ahead is None else 1
        self.fine = nn.ModuleList(
            [ConvNeXt(fine_width, condition=speaker_dims, ahead=ahead) for _ in range(fine_layers)]
        )
        self.leave = nn.Sequential(nn.LayerNorm(fine_width), nn.Linear(fine_width, BANDS + 2))

    def speaker(self, mel: Float[Tensor, "batch frames 80"]) -> Float[Tensor, "batch dims"]:
        """Return the speaker vector of a stretch of speech."""
        return self.speaker_encoder(mel)

    def quantize(
        self, mel: Float[Tensor, "batch frames 80"], speaker: Float[Tensor, "batch dims"]
    ) -> Float[Tensor, "batch codes 5"]:
        """Return quantized values, with gradients."""
        hidden = self.enter(stack(mel))
        for block in self.encoder:
            hidden = block(hidden, speaker)
        return self.quantizer(self.to_code(hidden).float())

    def encode(
        self, mel: Float[Tensor, "batch frames 80"], speaker: Float[Tensor, "batch dims"]
    ) -> Int[Tensor, "batch codes"]:
        """Return codes, 25 a second."""
        return self.quantizer.indices(self.quantize(mel, speaker))

    def reconstruct(
        self, quantized: Float[Tensor, "batch codes 5"], speaker: Float[Tensor, "batch dims"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(mel, pitch, voicing logit) from quantized values."""
        hidden = self.from_code(quantized)
        for block in self.decoder:
            hidden = block(hidden, speaker)
        hidden = self.refine(hidden).unflatten(-1, (FRAMES_PER_CODE, -1)).flatten(1, 2)
        for block in self.fine:
            hidden = block(hidden, speaker)
        return self.read_out(hidden)

    def read_out(self, hidden: Float[Tensor, "batch frames width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return (mel, pitch, voicing logit) from the last layer."""
        out = self.leave(hidden).float()
        return out[..., :BANDS], out[..., BANDS], out[..., BANDS + 1]

    def decode(self, codes: Int[Tensor, "batch codes"], speaker: Float[Tensor, "batch dims"]) -> Acoustics:
        """Return what the vocoder needs, from codes and the speaker vector.

        Raises
        ------
        ValueError
            For a code outside the codebook.
        """
        return self.sharpened(*self.reconstruct(self.values(codes), speaker))

    def values(self, codes: Int[Tensor, "batch codes"]) -> Float[Tensor, "batch codes 5"]:
        """Return what the decoder is given for codes.

        Raises
        ------
        ValueError
            For a code outside the codebook.
        """
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < CODES:
            raise ValueError(f"codes must be in [0, {CODES}), not in [{int(codes.min())}, {int(codes.max())}]")
        return self.quantizer.values(codes).to(self.from_code.weight.dtype)

    def sharpened(self, mel: Tensor, pitch: Tensor, voicing: Tensor) -> Acoustics:
        """Return what the vocoder needs, from what the decoder gives."""
        envelope = nn.functional.avg_pool1d(nn.functional.pad(mel, (7, 7), mode="replicate"), 15, stride=1)
        return Acoustics(envelope + self.contrast * (mel - envelope), pitch, voicing.sigmoid())


def shares(total: int | None, layers: int) -> list[int | None]:
    """Return how much of a look-ahead each layer has, evenly; None: no layer is limited."""
    if total is None:
        return [None] * layers
    return [total * (layer + 1) // layers - total * layer // layers for layer in range(layers)]


def stack(mel: Float[Tensor, "batch frames 80"]) -> Float[Tensor, "batch codes 320"]:
    """Four frames to one step; the frames must come in fours (:class:`LogMel` sees to that)."""
    return mel.unflatten(1, (-1, FRAMES_PER_CODE)).flatten(2)
