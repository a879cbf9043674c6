"""The vocoder: mel, pitch and voicing to sound, by source and filter.

    sound = h1 * pulses(pitch) + h2 * noise

A train of pulses at the pitch and white noise each pass a filter that changes every 10 ms; a small network draws
the two magnitude responses from the mel spectrum, and their phases are the minimum phases that belong to them. It
is the classical model of the voice (as in WORLD) with learned filters (as in DDSP, arXiv 2001.04643): no adversary
to train, so minutes on a CPU are enough, and harmonics cannot smear.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wandlib.systems.mini.codec import PITCH_HZ, Acoustics
from wandlib.systems.mini.features import BANDS, HOP, MEAN, SAMPLE_RATE, SCALE
from wandlib.systems.mini.layers import ConvNeXt

FFT = 1024
FRAME = 2 * HOP


class Vocoder(nn.Module):
    """Source and filter with learned filters.

    Parameters
    ----------
    width, layers
        Of the network that draws the filters.
    """

    def __init__(self, width: int = 160, layers: int = 4) -> None:
        super().__init__()
        self.config = {"width": width, "layers": layers}
        self.enter = nn.Linear(BANDS + 2, width)
        self.blocks = nn.ModuleList([ConvNeXt(width) for _ in range(layers)])
        filters = nn.Linear(width, 2 * BANDS)
        nn.init.zeros_(filters.weight)
        nn.init.zeros_(filters.bias)
        self.leave = nn.Sequential(nn.LayerNorm(width), filters)
        self.spread: Tensor
        self.taper: Tensor
        self.causal: Tensor
        self.register_buffer("spread", _bands_to_bins(), persistent=False)
        self.register_buffer("taper", torch.hann_window(FRAME), persistent=False)
        fold = torch.zeros(FFT)
        fold[0] = fold[FFT // 2] = 1
        fold[1 : FFT // 2] = 2
        self.register_buffer("causal", fold, persistent=False)

    def forward(
        self, acoustics: Acoustics, noise: Float[Tensor, "batch samples"] | None = None
    ) -> Float[Tensor, "batch samples"]:
        """Sound, HOP samples a frame.

        Parameters
        ----------
        acoustics
            From the codec's decoder or from an analysis of recorded speech.
        noise
            White noise of unit variance; None: drawn with a fixed seed, so that the same codes give the same sound.
        """
        mel, pitch, voicing = acoustics
        voiced = (voicing > 0.5).to(mel.dtype)
        inputs = torch.cat((mel, pitch.unsqueeze(-1) * voiced.unsqueeze(-1), voiced.unsqueeze(-1)), dim=-1)
        hidden = self.enter(inputs)
        for block in self.blocks:
            hidden = block(hidden)
        # What the network adds is a correction to the mel spectrum itself, in natural log units.
        log_pulse, log_noise = (
            self.leave(hidden).float().unflatten(-1, (2, BANDS)) + (mel * SCALE + MEAN).unsqueeze(-2)
        ).unbind(-2)
        if noise is None:
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(mel.shape[0], mel.shape[1] * HOP, generator=generator).to(mel.device)
        sound = self._filter(pulses(pitch.float(), voiced.float()), log_pulse)
        return sound + self._filter(noise, log_noise)

    def _filter(self, source: Float[Tensor, "batch samples"], log_bands: Float[Tensor, "batch frames 80"]) -> Tensor:
        """Overlapping frames of the source, each through the minimum-phase filter of its frame."""
        magnitude = log_bands.clamp(-14, 4) @ self.spread
        cepstrum = torch.fft.irfft(magnitude, FFT) * self.causal
        response = torch.exp(torch.fft.rfft(cepstrum, FFT))
        batch, frames = log_bands.shape[:2]
        padded = nn.functional.pad(source, (HOP // 2, FRAME - HOP // 2))
        pieces = padded.unfold(1, FRAME, HOP)[:, :frames] * self.taper
        filtered = torch.fft.irfft(torch.fft.rfft(pieces, FFT) * response, FFT)
        length = (frames - 1) * HOP + FFT
        summed = nn.functional.fold(filtered.transpose(1, 2), (1, length), (1, FFT), stride=(1, HOP))
        return summed.view(batch, length)[:, HOP // 2 : HOP // 2 + frames * HOP]


def pulses(
    pitch: Float[Tensor, "batch frames"], voiced: Float[Tensor, "batch frames"]
) -> Float[Tensor, "batch samples"]:
    """A train of band-limited pulses of unit variance at the pitch, silent where unvoiced.

    The sum of cos(n phi) for n = 1 .. N has a closed form; N is the largest that stays below the Nyquist frequency.
    """
    hz = (PITCH_HZ * pitch.clamp(-1.2, 1.6).exp()).unsqueeze(1)
    hz = nn.functional.interpolate(hz, scale_factor=HOP, mode="linear").squeeze(1)
    gate = nn.functional.interpolate(voiced.unsqueeze(1), scale_factor=HOP, mode="linear").squeeze(1)
    # Double precision: a phase that grows for a minute must not lose its fraction.
    turns = torch.cumsum(hz.double() / SAMPLE_RATE, dim=-1)
    phase = (2 * math.pi * (turns - turns.round())).float()
    count = torch.floor(SAMPLE_RATE / 2 / hz)
    half = torch.where(phase.abs() < 1e-4, 1e-4, phase) / 2
    total = torch.sin((count + 0.5) * 2 * half) / (2 * torch.sin(half)) - 0.5
    return gate * total * torch.sqrt(2 / count)


def _bands_to_bins() -> Float[Tensor, "bands bins"]:
    """Linear interpolation from the mel bands' centres to the bins of the filter's spectrum."""
    from transformers.audio_utils import hertz_to_mel, mel_to_hertz

    top = hertz_to_mel(SAMPLE_RATE / 2, "slaney")
    step = top / (BANDS + 1)
    centres = torch.tensor([mel_to_hertz((i + 1) * step, "slaney") for i in range(BANDS)])
    bins = torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)
    right = torch.searchsorted(centres, bins).clamp(1, BANDS - 1)
    weight = ((bins - centres[right - 1]) / (centres[right] - centres[right - 1])).clamp(0, 1)
    spread = torch.zeros(BANDS, FFT // 2 + 1)
    columns = torch.arange(FFT // 2 + 1)
    spread[right - 1, columns] = (1 - weight).float()
    spread[right, columns] = weight.float()
    return spread
