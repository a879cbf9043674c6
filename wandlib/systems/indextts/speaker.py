"""Speaker encoder of the vocoder: ECAPA-TDNN, a mel spectrum to one vector.

Desplanques et al., arXiv 2005.07143, with the conventions of SpeechBrain: reflected ends, the first part of a Res2
convolution passes unchanged, and attention over time sees mean and deviation of the whole recording::

    a = softmax_t(W tanh(norm(relu(V [x_t | mean | std]))))
    pooled = [sum_t a x | sqrt(sum_t a (x - sum a x)^2)]
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SCALE = 8
"""Parts that a Res2 convolution splits its channels into."""
DILATIONS = (2, 3, 4)
FLOOR = 1e-12
"""Of a variance."""

Frames = Float[Tensor, "batch channels time"]


class Convolution(nn.Module):
    """Convolution that keeps the length, with reflected ends."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.margin = dilation * (kernel - 1) // 2
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)

    def forward(self, frames: Float[Tensor, "batch inputs time"]) -> Frames:
        padded = F.pad(frames, (self.margin, self.margin), mode="reflect") if self.margin else frames
        convolved: Tensor = self.conv(padded)
        return convolved


class Norm(nn.Module):
    """Batch norm; a module of its own, because the checkpoint names it twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, frames: Frames) -> Frames:
        normalized: Tensor = self.norm(frames)
        return normalized


class Tdnn(nn.Module):
    """Convolution, relu, batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = Convolution(inputs, outputs, kernel, dilation)
        self.norm = Norm(outputs)

    def forward(self, frames: Float[Tensor, "batch inputs time"]) -> Frames:
        normalized: Tensor = self.norm(F.relu(self.conv(frames)))
        return normalized


class Res2(nn.Module):
    """Dilated convolutions over parts of the channels, each on the sum of its part and the result before it."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        self.blocks = nn.ModuleList(Tdnn(width, width, 3, dilation) for _ in range(SCALE - 1))

    def forward(self, frames: Frames) -> Frames:
        first, *parts = frames.chunk(SCALE, dim=1)
        results = [first]
        for part, block in zip(parts, self.blocks, strict=True):
            results.append(block(part if len(results) == 1 else part + results[-1]))
        return torch.cat(results, dim=1)


class SqueezeExcite(nn.Module):
    """Scale each channel by a function of all channels' means (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, bottleneck)
        self.conv2 = Convolution(bottleneck, channels)

    def forward(self, frames: Frames) -> Frames:
        gates: Tensor = self.conv2(F.relu(self.conv1(frames.mean(-1, keepdim=True)))).sigmoid()
        return gates * frames


class SeRes2Block(nn.Module):
    """The residual block of ECAPA-TDNN."""

    def __init__(self, channels: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        self.tdnn1 = Tdnn(channels, channels)
        self.res2net_block = Res2(channels, dilation)
        self.tdnn2 = Tdnn(channels, channels)
        self.se_block = SqueezeExcite(channels, bottleneck)

    def forward(self, frames: Frames) -> Frames:
        residual: Tensor = self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(frames))))
        return residual + frames


class AttentivePooling(nn.Module):
    """Mean and deviation over time, weighted by an attention of each channel's own."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.tdnn = Tdnn(3 * channels, bottleneck)
        self.conv = Convolution(bottleneck, channels)

    def forward(self, frames: Frames) -> Float[Tensor, "batch twice 1"]:
        time = frames.shape[-1]
        mean, deviation = statistics(frames, torch.full_like(frames, 1 / time))
        context = torch.cat((frames, mean.expand(-1, -1, time), deviation.expand(-1, -1, time)), dim=1)
        weights = self.conv(self.tdnn(context).tanh()).softmax(-1)
        return torch.cat(statistics(frames, weights), dim=1)


def statistics(frames: Frames, weights: Frames) -> tuple[Float[Tensor, "batch channels 1"], Tensor]:
    """Weighted mean and deviation over time."""
    mean = (weights * frames).sum(-1, keepdim=True)
    variance = (weights * (frames - mean).square()).sum(-1, keepdim=True)
    return mean, variance.clamp(FLOOR).sqrt()


class SpeakerEncoder(nn.Module):
    """Mel spectrum to a speaker vector.

    Parameters
    ----------
    bands, out
        Mel bands, and features of the vector.
    channels, features
        Width of the blocks, and of the frames that are pooled.
    gate, attention
        Width of the bottlenecks of the gates and of the pooling.
    """

    def __init__(
        self, bands: int, out: int, *, channels: int = 512, features: int = 1536, gate: int = 128, attention: int = 128
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            (Tdnn(bands, channels, 5), *(SeRes2Block(channels, gate, dilation) for dilation in DILATIONS))
        )
        self.mfa = Tdnn(channels * len(DILATIONS), features)
        self.asp = AttentivePooling(features, attention)
        self.asp_bn = Norm(2 * features)
        self.fc = Convolution(2 * features, out)

    def forward(self, mel: Float[Tensor, "batch bands time"]) -> Float[Tensor, "batch out 1"]:
        outputs, frames = [], mel
        for block in self.blocks:
            frames = block(frames)
            outputs.append(frames)
        vector: Tensor = self.fc(self.asp_bn(self.asp(self.mfa(torch.cat(outputs[1:], dim=1)))))
        return vector


def speaker_widths(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Widths that the settings leave out, read off the weights of a whole vocoder."""
    stem = "speaker_encoder"
    return {
        "channels": state[f"{stem}.blocks.0.conv.conv.bias"].shape[0],
        "features": state[f"{stem}.mfa.conv.conv.bias"].shape[0],
        "gate": state[f"{stem}.blocks.1.se_block.conv1.conv.bias"].shape[0],
        "attention": state[f"{stem}.asp.tdnn.conv.conv.bias"].shape[0],
    }
