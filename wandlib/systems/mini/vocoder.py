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
        Size of the network that draws the filters.
    ahead
        Frames after a frame that each layer depends on; None: as many as before it.
    """

    def __init__(self, width: int = 160, layers: int = 4, ahead: int | None = None) -> None:
        super().__init__()
        self.config = {"width": width, "layers": layers, "ahead": ahead}
        self.enter = nn.Linear(BANDS + 2, width)
        self.blocks = nn.ModuleList([ConvNeXt(width, ahead=ahead) for _ in range(layers)])
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
        """Return the sound, HOP samples a frame.

        Parameters
        ----------
        acoustics
            From the codec's decoder or from an analysis of recorded speech.
        noise
            White noise of unit variance; None: drawn with a fixed seed, so that the same codes give the same sound.
        """
        hidden = self.enter(inputs(acoustics))
        for block in self.blocks:
            hidden = block(hidden)
        log_pulse, log_noise = self.filters(hidden, acoustics.mel)
        frames = acoustics.mel.shape[1]
        if noise is None:
            noise = white_noise(noise_generator(), acoustics.mel.shape[0], frames).to(acoustics.mel.device)
        sound = self._filter(pulses(acoustics.pitch.float(), voiced(acoustics).float()), log_pulse)
        return sound + self._filter(noise, log_noise)

    def filters(
        self, hidden: Float[Tensor, "batch frames width"], mel: Float[Tensor, "batch frames 80"]
    ) -> tuple[Tensor, Tensor]:
        """Return the log magnitudes, [batch, frames, 80] each, that the pulses and the noise are filtered by."""
        # What the network adds is a correction to the mel spectrum itself, in natural log units.
        correction = self.leave(hidden).float().unflatten(-1, (2, BANDS))
        log_pulse, log_noise = (correction + (mel * SCALE + MEAN).unsqueeze(-2)).unbind(-2)
        return log_pulse, log_noise

    def filtered(
        self, pieces: Float[Tensor, "batch frames piece"], log_bands: Float[Tensor, "batch frames 80"]
    ) -> Float[Tensor, "batch frames response"]:
        """Return each frame of the source, ``FRAME`` samples, through the minimum-phase filter of its frame."""
        magnitude = log_bands.clamp(-14, 4) @ self.spread
        cepstrum = torch.fft.irfft(magnitude, FFT) * self.causal
        response = torch.exp(torch.fft.rfft(cepstrum, FFT))
        return torch.fft.irfft(torch.fft.rfft(pieces * self.taper, FFT) * response, FFT)

    def _filter(self, source: Float[Tensor, "batch samples"], log_bands: Float[Tensor, "batch frames 80"]) -> Tensor:
        """Return the source, filtered in overlapping frames."""
        frames = log_bands.shape[1]
        padded = nn.functional.pad(source, (HOP // 2, FRAME - HOP // 2))
        summed = overlap_add(self.filtered(padded.unfold(1, FRAME, HOP)[:, :frames], log_bands))
        return summed[:, HOP // 2 : HOP // 2 + frames * HOP]


def voiced(acoustics: Acoustics) -> Float[Tensor, "batch frames"]:
    """Return 1 where a frame is voiced, 0 where it is not."""
    return (acoustics.voicing > 0.5).to(acoustics.mel.dtype)


def inputs(acoustics: Acoustics) -> Float[Tensor, "batch frames inputs"]:
    """Return what the network sees of each frame."""
    gate = voiced(acoustics).unsqueeze(-1)
    return torch.cat((acoustics.mel, acoustics.pitch.unsqueeze(-1) * gate, gate), dim=-1)


def noise_generator() -> torch.Generator:
    """Return the source of the noise of one utterance: the same in each, so that the same codes give the same sound."""
    return torch.Generator().manual_seed(0)


def white_noise(generator: torch.Generator, batch: int, frames: int) -> Float[Tensor, "batch samples"]:
    """Return the next ``frames`` frames of white noise; for a batch of 1, however they are cut into calls."""
    return torch.randn(batch, frames * HOP, generator=generator)


def overlap_add(filtered: Float[Tensor, "batch frames response"]) -> Float[Tensor, "batch samples"]:
    """Return the sum of responses that begin ``HOP`` samples after each other."""
    batch, frames = filtered.shape[:2]
    length = (frames - 1) * HOP + FFT
    summed = nn.functional.fold(filtered.transpose(1, 2), (1, length), (1, FFT), stride=(1, HOP))
    return summed.view(batch, length)


def pulses(
    pitch: Float[Tensor, "batch frames"], voiced: Float[Tensor, "batch frames"]
) -> Float[Tensor, "batch samples"]:
    """Return a train of band-limited pulses of unit variance at the pitch, silent where unvoiced."""
    padded, gate = (
        nn.functional.pad(part.unsqueeze(1), (1, 1), mode="replicate").squeeze(1) for part in (pitch, voiced)
    )
    return pulses_between(padded, gate, torch.zeros(len(pitch), 1, dtype=torch.float64, device=pitch.device))[0]


def pulses_between(
    pitch: Float[Tensor, "batch neighbors"], voiced: Float[Tensor, "batch neighbors"], turns: Float[Tensor, "batch 1"]
) -> tuple[Float[Tensor, "batch samples"], Float[Tensor, "batch 1"]]:
    """Return the pulses of all frames but the first and the last, and the turns of their phase so far.

    The sum of cos(n phi) for n = 1 .. N has a closed form; N is the largest that stays below the Nyquist frequency.

    Parameters
    ----------
    pitch, voiced
        Frames in a row, with a neighbor at each end.
    turns
        Turns of the phase before the first sample, float64.
    """
    hz = upsample(PITCH_HZ * pitch.clamp(-1.2, 1.6).exp())
    # Double precision: a phase that grows for a minute must not lose its fraction.
    total_turns = turns + torch.cumsum(hz.double() / SAMPLE_RATE, dim=-1)
    phase = (2 * math.pi * (total_turns - total_turns.round())).float()
    count = torch.floor(SAMPLE_RATE / 2 / hz)
    half = torch.where(phase.abs() < 1e-4, 1e-4, phase) / 2
    total = torch.sin((count + 0.5) * 2 * half) / (2 * torch.sin(half)) - 0.5
    return upsample(voiced) * total * torch.sqrt(2 / count), total_turns[:, -1:]


def upsample(frames: Float[Tensor, "batch neighbors"]) -> Float[Tensor, "batch samples"]:
    """Return ``HOP`` samples for each frame that has two neighbors, by linear interpolation between their centers."""
    before, here, after = frames[:, :-2, None], frames[:, 1:-1, None], frames[:, 2:, None]
    offset = (torch.arange(HOP, device=frames.device, dtype=frames.dtype) + 0.5) / HOP - 0.5
    return (here + offset.abs() * (torch.where(offset < 0, before, after) - here)).flatten(1)


def _bands_to_bins() -> Float[Tensor, "bands bins"]:
    """Linear interpolation from the mel bands' centers to the bins of the filter's spectrum."""
    from transformers.audio_utils import hertz_to_mel, mel_to_hertz

    top = hertz_to_mel(SAMPLE_RATE / 2, "slaney")
    step = top / (BANDS + 1)
    centers = torch.tensor([mel_to_hertz((i + 1) * step, "slaney") for i in range(BANDS)])
    bins = torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)
    right = torch.searchsorted(centers, bins).clamp(1, BANDS - 1)
    weight = ((bins - centers[right - 1]) / (centers[right] - centers[right - 1])).clamp(0, 1)
    spread = torch.zeros(BANDS, FFT // 2 + 1)
    columns = torch.arange(FFT // 2 + 1)
    spread[right - 1, columns] = (1 - weight).float()
    spread[right, columns] = weight.float()
    return spread
