"""BiCodec's wave generator: frames to sound by transposed convolutions with snakes, the decoder of DAC.

Kumar et al., arXiv 2306.06546. Each stage halves the channels and multiplies the rate by its stride; three residual
units of dilation 1, 3 and 9 follow. 8 * 5 * 4 * 2 = 320 samples a frame in the published model.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from wandlib.systems.acoustics.snake import Snake

KERNEL = 7
DILATIONS = (1, 3, 9)

Signal = Float[Tensor, "batch channels time"]


class ResidualUnit(nn.Module):
    """Snake, dilated convolution, snake, 1x1 convolution, added to the input."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Snake(channels),
            nn.Conv1d(channels, channels, KERNEL, padding=dilation * (KERNEL // 2), dilation=dilation),
            Snake(channels),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, signal: Signal) -> Signal:
        residual: Tensor = self.block(signal)
        return signal + residual


class Stage(nn.Module):
    """Upsampling by ``stride``, then residual units."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Snake(inputs),
            nn.ConvTranspose1d(inputs, outputs, kernel, stride, padding=(kernel - stride) // 2),
            *(ResidualUnit(outputs, dilation) for dilation in DILATIONS),
        )

    def forward(self, signal: Float[Tensor, "batch inputs frames"]) -> Signal:
        upsampled: Tensor = self.block(signal)
        return upsampled


class WaveGenerator(nn.Module):
    """Frames to sound.

    Parameters
    ----------
    input_channel, channels
        Features of a frame, and channels before the first stage.
    rates, kernel_sizes
        Strides and kernels of the stages.

    Notes
    -----
    Names as in ``BiCodec/config.yaml``.
    """

    def __init__(self, input_channel: int, channels: int, rates: Sequence[int], kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        stages = [
            Stage(channels >> index, channels >> (index + 1), kernel, rate)
            for index, (kernel, rate) in enumerate(zip(kernel_sizes, rates, strict=True))
        ]
        last = channels >> len(stages)
        self.model = nn.Sequential(
            nn.Conv1d(input_channel, channels, KERNEL, padding=KERNEL // 2),
            *stages,
            Snake(last),
            nn.Conv1d(last, 1, KERNEL, padding=KERNEL // 2),
            nn.Tanh(),
        )

    def forward(self, frames: Float[Tensor, "batch features frames"]) -> Float[Tensor, "batch samples"]:
        sound: Tensor = self.model(frames)
        return sound.squeeze(1)
