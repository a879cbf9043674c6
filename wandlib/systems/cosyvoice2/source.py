"""The source of the vocoder: a bundle of harmonics of the pitch where the voice sounds, and noise where it does not.

With F the pitch of each mel frame and h = 1..H::

    phase_h(frame) = 2 pi sum_{up to frame} h F / rate,    in between: linear, times the samples of a frame
    s_h = 0.1 sin(phase_h) [voiced] + noise of 0.003 (voiced) or 0.1 / 3 (unvoiced)
    source = tanh(w . s + b)

Source: Wang et al., neural source-filter, arXiv 1904.12088; HiFTNet, arXiv 2309.09493. Names of the published
``hift.pt``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class PitchPredictor(nn.Module):
    """Pitch in Hz from a mel spectrogram: five convolutions and a linear layer; 0 or more.

    Parameters
    ----------
    mels
        Bands of the spectrogram.
    channels
        Of the convolutions.
    """

    def __init__(self, mels: int = 80, channels: int = 512) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (mels, *[channels] * 4):
            layers += [weight_norm(nn.Conv1d(inputs, channels, 3, padding=1)), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Float[Tensor, "batch mels frames"]) -> Float[Tensor, "batch frames"]:
        return self.classifier(self.condnet(mel).transpose(1, 2)).squeeze(-1).abs()


class HarmonicSource(nn.Module):
    """Pitch to the waveform that the vocoder shapes.

    Parameters
    ----------
    rate
        Samples a second.
    hop
        Samples of a mel frame.
    harmonics
        Overtones beside the fundamental.
    amplitude
        Of a harmonic.
    noise
        Standard deviation of the noise where the voice sounds.
    threshold
        Pitch in Hz above which it sounds.
    """

    def __init__(
        self,
        rate: int = 24_000,
        hop: int = 480,
        harmonics: int = 8,
        amplitude: float = 0.1,
        noise: float = 0.003,
        threshold: float = 10,
    ) -> None:
        super().__init__()
        self.rate, self.hop, self.waves = rate, hop, harmonics + 1
        self.amplitude, self.noise, self.threshold = amplitude, noise, threshold
        self.l_linear = nn.Linear(self.waves, 1)

    def forward(
        self, pitch: Float[Tensor, "batch frames"], noise: Float[Tensor, "batch waves samples"]
    ) -> Float[Tensor, "batch 1 samples"]:
        """Return the source.

        Parameters
        ----------
        pitch
            In Hz, of each mel frame.
        noise
            Gaussian, standard deviation 1.
        """
        order = torch.arange(1, self.waves + 1, device=pitch.device, dtype=pitch.dtype)
        turns = (pitch[..., None] * order / self.rate) % 1  # whole turns are none
        phase = turns.cumsum(1) * (2 * math.pi) * self.hop
        phase = F.interpolate(phase.transpose(1, 2), scale_factor=float(self.hop), mode="linear").transpose(1, 2)
        voiced = (pitch > self.threshold).to(pitch.dtype).repeat_interleave(self.hop, dim=1)[..., None]
        level = voiced * self.noise + (1 - voiced) * self.amplitude / 3
        waves = phase.sin() * self.amplitude * voiced + level * noise.transpose(1, 2)
        return self.l_linear(waves).tanh().transpose(1, 2)
