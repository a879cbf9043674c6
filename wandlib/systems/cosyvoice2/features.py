"""The three spectrograms that a reference is looked at through.

=================  ======  ==========  =====  ====================================================
for                rate    bands       hop    detail
=================  ======  ==========  =====  ====================================================
the flow           24 kHz  80, Slaney  20 ms  magnitude, natural log, floor 1e-5
speech tokens      16 kHz  128         10 ms  Whisper's: log10 of the power, 8 below the maximum
the speaker        16 kHz  80, HTK     10 ms  Kaldi's: Povey window, pre-emphasis, minus the mean
=================  ======  ==========  =====  ====================================================
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank

SAMPLE_RATE = 24_000
HOP, WINDOW, BANDS = 480, 1920, 80
ANALYSIS_RATE = 16_000
"""Of the speech tokenizer and the speaker encoder."""


@cache
def _slaney(rate: int, window: int, bands: int, highest: float) -> Tensor:
    filters = mel_filter_bank(window // 2 + 1, bands, 0.0, highest, rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters.T).float()


def flow_mel(
    samples: Float[Tensor, " samples"],
    rate: int = SAMPLE_RATE,
    hop: int = HOP,
    window: int = WINDOW,
    bands: int = BANDS,
) -> Float[Tensor, "frames bands"]:
    """Return the log-mel spectrogram of the flow, up to 8 kHz, of sound at 24 kHz; one frame for each ``hop``."""
    margin = (window - hop) // 2
    padded = F.pad(samples[None, None], (margin, margin), mode="reflect")[0]
    hann = torch.hann_window(window)
    bins = torch.stft(padded, window, hop, window, hann, center=False, return_complex=True)[0]
    magnitude = (bins.real.square() + bins.imag.square() + 1e-9).sqrt()
    return (_slaney(rate, window, bands, 8000.0) @ magnitude).clamp(min=1e-5).log().T


def whisper_mel(samples: NDArray[np.float32], bands: int = 128) -> NDArray[np.float32]:
    """Return Whisper's log-mel spectrogram, [bands, frames], of sound at 16 kHz."""
    extractor = _whisper(bands)
    features = extractor(samples, sampling_rate=ANALYSIS_RATE, padding="do_not_pad", return_tensors="np")
    return np.asarray(features["input_features"][0], dtype=np.float32)


@cache
def _whisper(bands: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=bands)


@cache
def _kaldi_filters(bands: int) -> Tensor:
    """Triangles that are even on the mel scale 1127 ln(1 + f / 700), between 20 Hz and 8 kHz; [bins, bands]."""
    lowest, highest = 1127 * math.log1p(20 / 700), 1127 * math.log1p(ANALYSIS_RATE / 2 / 700)
    edges = torch.linspace(lowest, highest, bands + 2, dtype=torch.float64)
    mels = 1127 * torch.log1p(torch.arange(257, dtype=torch.float64) * ANALYSIS_RATE / 512 / 700)
    rising = (mels[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels[:, None]) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0)
    filters[256] = 0  # Kaldi leaves the highest bin out
    return filters


def speaker_features(samples: Float[Tensor, " samples"], bands: int = 80) -> Float[Tensor, "frames bands"]:
    """Return Kaldi's log filter bank energies of sound at 16 kHz, less their mean over time.

    Frames of 25 ms every 10 ms, each without its mean; pre-emphasis 0.97, Povey window (Hann to the power of 0.85), 512
    points. In float64: where little energy is, float32 is off by 1e-4 and more.
    """
    frames = samples.double().unfold(0, 400, 160)
    frames = frames - frames.mean(1, keepdim=True)
    before = torch.cat((frames[:, :1], frames[:, :-1]), 1)
    window = torch.hann_window(400, periodic=False, dtype=torch.float64).pow(0.85)
    power = torch.fft.rfft((frames - 0.97 * before) * window, 512).abs().square()
    energies = (power @ _kaldi_filters(bands)).clamp(min=torch.finfo(torch.float32).eps).log()
    return (energies - energies.mean(0, keepdim=True)).float()
