"""The vocoder: a mel spectrogram and a harmonic source to sound, over the inverse of a short Fourier transform.

The network upsamples mel frames 120 times; at each rate the source's own short Fourier transform (16 samples, hop 4)
is added, and residual blocks of three kernels are averaged. The last layer gives log magnitude and phase of the same
transform, whose inverse is the waveform.

Source: HiFTNet, arXiv 2309.09493; Kaneko et al., iSTFTNet, arXiv 2203.02395; Kong et al., HiFi-GAN, arXiv 2010.05646.
Names of the published ``hift.pt``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from wandlib.systems.cosyvoice2.source import HarmonicSource, PitchPredictor


class Snake(nn.Module):
    """x + sin^2(a x) / a, with a learned a for each channel (Ziyin et al., arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Float[Tensor, "batch channels time"]) -> Float[Tensor, "batch channels time"]:
        alpha = self.alpha[:, None]
        return x + (x * alpha).sin().square() / (alpha + 1e-9)


class ResidualBlock(nn.Module):
    """Pairs of convolutions, the first of them dilated, each pair added to its input."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            return weight_norm(nn.Conv1d(channels, channels, kernel, dilation=dilation, padding="same"))

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Float[Tensor, "batch channels time"]) -> Float[Tensor, "batch channels time"]:
        for first, act1, second, act2 in zip(
            self.convs1, self.activations1, self.convs2, self.activations2, strict=True
        ):
            x = x + second(act2(first(act1(x))))
        return x


class HiFT(nn.Module):
    """Mel spectrogram to sound.

    Parameters
    ----------
    pitch
        Predicts the pitch of each frame.
    source
        Makes the source of it.
    mels
        Bands of the spectrogram.
    channels
        Of the first layer; each upsampling halves them.
    rates, kernels
        Of the upsampling.
    n_fft, hop
        Of the Fourier transform, in samples.
    block_kernels, block_dilations
        Of the residual blocks, at every rate.
    source_kernels, source_dilations
        Of the source's residual block at each rate.
    slope
        Of the leaky ReLU before an upsampling.
    limit
        Of the waveform.
    """

    window: Tensor

    def __init__(
        self,
        pitch: PitchPredictor,
        source: HarmonicSource,
        mels: int = 80,
        channels: int = 512,
        rates: Sequence[int] = (8, 5, 3),
        kernels: Sequence[int] = (16, 11, 7),
        n_fft: int = 16,
        hop: int = 4,
        block_kernels: Sequence[int] = (3, 7, 11),
        block_dilations: Sequence[Sequence[int]] = ((1, 3, 5),) * 3,
        source_kernels: Sequence[int] = (7, 7, 11),
        source_dilations: Sequence[Sequence[int]] = ((1, 3, 5),) * 3,
        slope: float = 0.1,
        limit: float = 0.99,
    ) -> None:
        super().__init__()
        self.f0_predictor, self.m_source = pitch, source
        self.n_fft, self.hop, self.slope, self.limit = n_fft, hop, slope, limit
        self.samples = math.prod(rates) * hop
        """Of a mel frame."""
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.conv_pre = weight_norm(nn.Conv1d(mels, channels, 7, padding=3))
        self.ups, self.source_downs, self.source_resblocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for level, (rate, kernel) in enumerate(zip(rates, kernels, strict=True)):
            wide, narrow = channels >> level, channels >> (level + 1)
            self.ups.append(weight_norm(nn.ConvTranspose1d(wide, narrow, kernel, rate, padding=(kernel - rate) // 2)))
            rest = math.prod(rates[level + 1 :])  # frames of the source's transform for one at this level
            shape = (1, 1, 0) if rest == 1 else (2 * rest, rest, rest // 2)
            self.source_downs.append(nn.Conv1d(n_fft + 2, narrow, shape[0], shape[1], padding=shape[2]))
            self.source_resblocks.append(ResidualBlock(narrow, source_kernels[level], source_dilations[level]))
            for size, dilations in zip(block_kernels, block_dilations, strict=True):
                self.resblocks.append(ResidualBlock(narrow, size, dilations))
        self.conv_post = weight_norm(nn.Conv1d(channels >> len(rates), n_fft + 2, 7, padding=3))

    @torch.inference_mode()
    def forward(
        self,
        mel: Float[Tensor, "1 mels frames"],
        noise: Float[Tensor, "1 waves samples"],
        past_source: Float[Tensor, "1 1 past"] | None = None,
    ) -> tuple[Float[Tensor, "1 samples"], Float[Tensor, "1 1 samples"]]:
        """Return waveform and source.

        Parameters
        ----------
        mel
            The spectrogram.
        noise
            Of the source, standard deviation 1; see :meth:`draw`.
        past_source
            The source that these first samples already had, when a stream goes on.
        """
        source = self.m_source(self.f0_predictor(mel), noise)
        if past_source is not None:
            source = torch.cat((past_source, source[..., past_source.shape[-1] :]), -1)
        return self.decode(mel, source), source

    def draw(self, frames: int, generator: torch.Generator) -> Float[Tensor, "1 waves samples"]:
        """Draw the noise of the source for so many mel frames, on the generator's device."""
        shape = (1, self.m_source.waves, frames * self.samples)
        return torch.randn(shape, generator=generator, device=generator.device)

    def decode(
        self, mel: Float[Tensor, "batch mels frames"], source: Float[Tensor, "batch 1 samples"]
    ) -> Float[Tensor, "batch samples"]:
        """Return the waveform of a spectrogram and a source."""
        spectrum = torch.stft(source[:, 0], self.n_fft, self.hop, window=self.window, return_complex=True)
        spectrum = torch.cat((spectrum.real, spectrum.imag), 1)
        x, blocks = self.conv_pre(mel), len(self.resblocks) // len(self.ups)
        for level, (up, down, shape) in enumerate(zip(self.ups, self.source_downs, self.source_resblocks, strict=True)):
            x = up(F.leaky_relu(x, self.slope))
            if level == len(self.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")  # a centred transform has one frame more
            x = x + shape(down(spectrum))
            averaged = [block(x) for block in self.resblocks[level * blocks : (level + 1) * blocks]]
            x = torch.stack(averaged).mean(0)
        x = self.conv_post(F.leaky_relu(x))
        half = self.n_fft // 2 + 1
        magnitude, phase = x[:, :half].exp().clamp(max=100.0), x[:, half:].sin()
        bins = torch.polar(magnitude.float(), phase.float())
        return torch.istft(bins, self.n_fft, self.hop, window=self.window).clamp(-self.limit, self.limit)

    def fold_norms(self) -> HiFT:
        """Replace normed weights by their value, for speed; the state dict then has other names. Returns self."""
        for module in self.modules():
            if is_parametrized(module):
                remove_parametrizations(module, "weight")
        return self
