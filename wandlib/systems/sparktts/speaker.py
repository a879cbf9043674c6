"""BiCodec's speaker encoder: who speaks, as 32 indices of a finite scalar quantizer.

ECAPA-TDNN features (Desplanques et al., arXiv 2005.07143) of a mel spectrum of 6 s, resampled to 32 latents, quantized;
one vector d for each utterance is linear in the 32 quantized latents (Spark-TTS, arXiv 2503.01710, section 3).
The published checkpoint also holds ECAPA's pooling and x-vector, which only training uses: they are left in the file.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from wandlib.systems.acoustics.fsq import FiniteScalarQuantizer
from wandlib.systems.acoustics.perceiver import PerceiverResampler

SCALE = 8
"""Parts that a Res2 convolution splits its channels into."""

Frames = Float[Tensor, "batch channels time"]


class ConvReluNorm(nn.Module):
    """Convolution, relu, batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=padding)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, frames: Float[Tensor, "batch inputs time"]) -> Frames:
        normalized: Tensor = self.bn(F.relu(self.conv(frames)))
        return normalized


class Res2(nn.Module):
    """Dilated convolutions over parts of the channels, each on the sum of its part and the result before it.

    The last part passes unchanged (Gao et al., arXiv 1904.01169).
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(SCALE - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(SCALE - 1))

    def forward(self, frames: Frames) -> Frames:
        *parts, last = frames.chunk(SCALE, dim=1)
        results: list[Tensor] = []
        for part, conv, norm in zip(parts, self.convs, self.bns, strict=True):
            results.append(norm(F.relu(conv(part + results[-1] if results else part))))
        return torch.cat((*results, last), dim=1)


class SqueezeExcite(nn.Module):
    """Scale each channel by a function of all channels' means (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, bottleneck)
        self.linear2 = nn.Linear(bottleneck, channels)

    def forward(self, frames: Frames) -> Frames:
        gates = self.linear2(F.relu(self.linear1(frames.mean(-1)))).sigmoid()
        return frames * gates.unsqueeze(-1)


class SeRes2Block(nn.Module):
    """The residual block of ECAPA-TDNN."""

    def __init__(self, channels: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        self.se_res2block = nn.Sequential(
            ConvReluNorm(channels, channels),
            Res2(channels, dilation),
            ConvReluNorm(channels, channels),
            SqueezeExcite(channels, bottleneck),
        )

    def forward(self, frames: Frames) -> Frames:
        residual: Tensor = self.se_res2block(frames)
        return frames + residual


class EcapaFeatures(nn.Module):
    """ECAPA-TDNN up to the features of each frame.

    Parameters
    ----------
    bands
        Mel bands of the input.
    channels, bottleneck, features
        Width of the blocks, of their gates, and of the output.
    """

    def __init__(self, bands: int, channels: int = 512, bottleneck: int = 128, features: int = 1536) -> None:
        super().__init__()
        self.layer1 = ConvReluNorm(bands, channels, 5, 2)
        self.layer2 = SeRes2Block(channels, bottleneck, 2)
        self.layer3 = SeRes2Block(channels, bottleneck, 3)
        self.layer4 = SeRes2Block(channels, bottleneck, 4)
        self.conv = nn.Conv1d(3 * channels, features, 1)

    def forward(self, mel: Float[Tensor, "batch bands time"]) -> Float[Tensor, "batch features time"]:
        second = self.layer2(self.layer1(mel))
        third = self.layer3(second)
        return F.relu(self.conv(torch.cat((second, third, self.layer4(third)), dim=1)))


class SpeakerEncoder(nn.Module):
    """Mel spectra to global tokens, and global tokens to the speaker vector.

    Parameters
    ----------
    input_dim
        Mel bands.
    out_dim
        Features of the speaker vector.
    latent_dim, token_num
        Features and number of the latents.
    fsq_levels
        Levels of each quantized dimension.
    channels, bottleneck, features
        Of :class:`EcapaFeatures`.

    Notes
    -----
    Names as in ``BiCodec/config.yaml``.
    """

    def __init__(
        self,
        input_dim: int,
        out_dim: int,
        latent_dim: int,
        token_num: int,
        fsq_levels: Sequence[int],
        *,
        channels: int = 512,
        bottleneck: int = 128,
        features: int = 1536,
    ) -> None:
        super().__init__()
        self.speaker_encoder = EcapaFeatures(input_dim, channels, bottleneck, features)
        self.perceiver_sampler = PerceiverResampler(latent_dim, features, token_num)
        self.quantizer = FiniteScalarQuantizer(latent_dim, fsq_levels)
        self.project = nn.Linear(latent_dim * token_num, out_dim)

    @property
    def tokens(self) -> int:
        """Global tokens of an utterance."""
        return self.perceiver_sampler.latents.shape[0]

    def encode(self, mel: Float[Tensor, "batch bands time"]) -> Int[Tensor, "batch tokens"]:
        """Global tokens of a mel spectrum."""
        return self.quantizer.encode(self.perceiver_sampler(self.speaker_encoder(mel).transpose(1, 2)))

    def decode(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch out"]:
        """Speaker vector of global tokens."""
        # Feature by feature, then token by token: the order in which the published weights were trained.
        vector: Tensor = self.project(self.quantizer.decode(tokens).transpose(1, 2).flatten(1))
        return vector
