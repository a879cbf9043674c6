"""BiCodec's semantic path: wav2vec features to codes, and codes to the frames that the wave generator takes.

Encoder and prenet are ConvNeXt backbones with blocks that may change the frame rate; between them lies a vector
quantizer whose codebook has few dimensions and is searched by the cosine (Yu et al., arXiv 2110.04627)::

    code = argmax_k  <W_in z / ||W_in z||, e_k / ||e_k||>,      z_q = W_out e_code
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from wandlib.systems.acoustics.convnext import Backbone

SAMPLING_LAYERS = 2
"""ConvNeXt blocks after each change of the frame rate."""


class Resample(nn.Module):
    """Change the frame rate by a learned and a plain path, which are added.

    At a ratio of 1 nothing is learned and three times the input comes out: the published weights were trained so.
    """

    def __init__(self, width: int, *, up: int = 1, down: int = 1) -> None:
        super().__init__()
        self.up, self.down = up, down
        if up > 1:
            self.de_conv_upsampler = nn.Sequential(
                nn.LeakyReLU(0.2),
                nn.ConvTranspose1d(
                    width, width, 2 * up, up, padding=up // 2 + up % 2, output_padding=up % 2, groups=width
                ),
            )
        if down > 1:
            self.conv_downsampler = nn.Sequential(
                nn.LeakyReLU(0.2), nn.Conv1d(width, width, 2 * down, down, padding=down // 2 + down % 2, groups=width)
            )

    def forward(self, frames: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch width resampled"]:
        plain = frames.transpose(1, 2)
        merged = plain
        if self.up > 1:
            plain = plain.repeat_interleave(self.up, dim=2)
            merged = plain + self.de_conv_upsampler(merged)
        if self.down == 1:
            return 2 * merged + plain
        learned: Tensor = self.conv_downsampler(merged)
        return learned + F.avg_pool1d(merged, self.down) + F.avg_pool1d(plain, self.down)


class Encoder(nn.Module):
    """Features of a speech model to the frames that are quantized.

    Parameters
    ----------
    input_channels, out_channels
        Features of the input and the output.
    vocos_dim, vocos_intermediate_dim, vocos_num_layers
        Of the backbone.
    sample_ratios
        By how much each block lowers the frame rate.

    Notes
    -----
    Names as in ``BiCodec/config.yaml``.
    """

    def __init__(
        self,
        input_channels: int,
        vocos_dim: int,
        vocos_intermediate_dim: int,
        vocos_num_layers: int,
        out_channels: int,
        sample_ratios: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        self.encoder = Backbone(input_channels, vocos_dim, vocos_intermediate_dim, vocos_num_layers)
        self.downsample = nn.Sequential(
            *(
                nn.Sequential(
                    Resample(vocos_dim, down=ratio),
                    Backbone(vocos_dim, vocos_dim, vocos_intermediate_dim, SAMPLING_LAYERS),
                )
                for ratio in sample_ratios
            )
        )
        self.project = nn.Linear(vocos_dim, out_channels)

    def forward(self, features: Float[Tensor, "batch inputs time"]) -> Float[Tensor, "batch out frames"]:
        projected: Tensor = self.project(self.downsample(self.encoder(features)))
        return projected.transpose(1, 2)


class Prenet(nn.Module):
    """Quantized frames to frames for the wave generator, under a condition.

    Parameters
    ----------
    input_channels, out_channels
        Features of the input and the output.
    vocos_dim, vocos_intermediate_dim, vocos_num_layers
        Of the backbone.
    condition_dim
        Features of the speaker vector.
    sample_ratios
        By how much each block raises the frame rate.
    use_tanh_at_final
        Bound the output.

    Notes
    -----
    Names as in ``BiCodec/config.yaml``.
    """

    def __init__(
        self,
        input_channels: int,
        vocos_dim: int,
        vocos_intermediate_dim: int,
        vocos_num_layers: int,
        out_channels: int,
        condition_dim: int | None = None,
        sample_ratios: Sequence[int] = (1, 1),
        use_tanh_at_final: bool = False,
    ) -> None:
        super().__init__()
        self.bounded = use_tanh_at_final
        self.linear_pre = nn.Linear(input_channels, vocos_dim)
        self.downsample = nn.Sequential(
            *(
                nn.Sequential(
                    Resample(vocos_dim, up=ratio),
                    Backbone(vocos_dim, vocos_dim, vocos_intermediate_dim, SAMPLING_LAYERS),
                )
                for ratio in sample_ratios
            )
        )
        self.vocos_backbone = Backbone(vocos_dim, vocos_dim, vocos_intermediate_dim, vocos_num_layers, condition_dim)
        self.linear = nn.Linear(vocos_dim, out_channels)

    def forward(
        self, frames: Float[Tensor, "batch inputs time"], condition: Float[Tensor, "batch condition"] | None = None
    ) -> Float[Tensor, "batch out frames"]:
        hidden = self.downsample(self.linear_pre(frames.transpose(1, 2))).transpose(1, 2)
        out: Tensor = self.linear(self.vocos_backbone(hidden, condition)).transpose(1, 2)
        return out.tanh() if self.bounded else out


class FactorizedQuantizer(nn.Module):
    """Vector quantizer with a codebook of few dimensions.

    Parameters
    ----------
    input_dim
        Features of a frame.
    codebook_size, codebook_dim
        Codes and their dimensions.
    """

    def __init__(self, input_dim: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.in_project = nn.Conv1d(input_dim, codebook_dim, 1)
        self.out_project = nn.Conv1d(codebook_dim, input_dim, 1)
        self.codebook = nn.Embedding(codebook_size, codebook_dim)

    def encode(self, frames: Float[Tensor, "batch inputs time"]) -> Int[Tensor, "batch time"]:
        """Code of each frame."""
        latents = F.normalize(self.in_project(frames).transpose(1, 2), dim=-1)
        return (latents @ F.normalize(self.codebook.weight, dim=-1).T).argmax(-1)

    def decode(self, codes: Int[Tensor, "batch time"]) -> Float[Tensor, "batch inputs time"]:
        """Frame of each code."""
        frames: Tensor = self.out_project(self.codebook(codes).transpose(1, 2))
        return frames
