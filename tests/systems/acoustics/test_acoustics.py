"""Facts of the acoustic blocks that hold for any weights."""

from __future__ import annotations

import math

import pytest
import torch
import torchaudio
from sinusoids import fill, sinusoid
from torch import nn

from wandlib.systems.acoustics import resample as resampling
from wandlib.systems.acoustics.antialias import AntiAliased, low_pass
from wandlib.systems.acoustics.convnext import Backbone
from wandlib.systems.acoustics.mel import MelSpectrogram
from wandlib.systems.acoustics.perceiver import PerceiverResampler
from wandlib.systems.acoustics.resample import resample
from wandlib.systems.acoustics.snake import Snake, SnakeBeta


@pytest.mark.parametrize(("rate", "wanted"), [(22_050, 24_000), (48_000, 24_000), (16_000, 24_000), (24_000, 24_000)])
def test_resampling_is_torchaudios(rate: int, wanted: int) -> None:
    sound = sinusoid("sound", (2, 5001))
    expected = torchaudio.transforms.Resample(rate, wanted)(sound)
    torch.testing.assert_close(resample(sound, rate, wanted), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_mel_spectrum_is_torchaudios(scale: str) -> None:
    theirs = torchaudio.transforms.MelSpectrogram(
        16_000,
        512,
        400,
        160,
        50.0,
        7000.0,
        n_mels=40,
        power=1,
        norm="slaney" if scale == "slaney" else None,
        mel_scale=scale,
    )
    ours = MelSpectrogram(16_000, 512, 400, 160, 40, low=50.0, high=7000.0, scale=scale)
    sound = sinusoid("sound", (2, 4000))
    torch.testing.assert_close(ours(sound), theirs(sound), rtol=1e-5, atol=1e-4)
    with pytest.raises(ValueError, match="more than 256 samples, got 256"):
        ours(sound[:, :256])


def test_the_filter_passes_what_is_slow_and_stops_what_is_fast() -> None:
    taps = low_pass()[0, 0].double()
    time = torch.arange(len(taps), dtype=torch.float64)
    gain = {
        cycles: float((taps * torch.exp(-2j * torch.pi * cycles * time)).sum().abs()) for cycles in (0.0, 0.05, 0.45)
    }
    assert gain[0.0] == pytest.approx(1, abs=1e-6)
    assert gain[0.05] == pytest.approx(1, abs=0.02)
    assert gain[0.45] < 0.01


def test_a_slow_signal_passes_through_an_activation_that_does_nothing() -> None:
    signal = (0.1 * torch.arange(200.0)).sin().expand(1, 3, -1)
    passed = AntiAliased(nn.Identity())(signal)
    torch.testing.assert_close(passed[..., 20:-20], signal[..., 20:-20], rtol=0, atol=5e-3)


def test_snakes_agree_where_their_parameters_do() -> None:
    """One stores a number, the other its logarithm."""
    one, two = Snake(4), SnakeBeta(4)
    with torch.no_grad():
        one.alpha.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0])[None, :, None])
        two.alpha.copy_(one.alpha.flatten().log())
        two.beta.copy_(one.alpha.flatten().log())
        signal = sinusoid("signal", (2, 4, 9))
        torch.testing.assert_close(one(signal), two(signal))
        torch.testing.assert_close(one(signal), signal + (one.alpha * signal).sin() ** 2 / one.alpha)


@torch.no_grad()
def test_padding_changes_no_latent() -> None:
    perceiver = fill(PerceiverResampler(8, 12, 4, heads=2))
    frames = sinusoid("frames", (1, 10, 12))
    padded = torch.cat((frames, 9 * torch.ones(1, 5, 12)), dim=1)
    valid = torch.arange(15)[None] < 10
    torch.testing.assert_close(perceiver(padded, valid), perceiver(frames))
    assert (perceiver(padded) - perceiver(frames)).abs().max() > 1e-3


def test_a_backbone_with_a_condition_needs_one() -> None:
    with pytest.raises(ValueError, match="pass one vector for each utterance"):
        Backbone(3, 4, 8, 1, condition=2)(torch.zeros(1, 3, 5))


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 24_000), (16_000, 22_050), (8_000, 16_000)])
def test_resampling_without_a_table_is_the_same(rate: int, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    expected = resample(sound, rate, wanted)
    monkeypatch.setattr(resampling, "LARGEST_TABLE", 0)
    monkeypatch.setattr(resampling, "BLOCK", 1000)
    torch.testing.assert_close(resample(sound, rate, wanted), expected, rtol=0, atol=2e-6)


def test_rates_without_a_common_divisor_take_no_table() -> None:
    """Of a billion weights: a header may name any rate."""
    sound = torch.sin(torch.arange(4410) * (2 * torch.pi * 440 / 44_101))[None]
    found = resample(sound, 44_101, 24_000)
    expected = torch.sin(torch.arange(found.shape[-1]) * (2 * torch.pi * 440 / 24_000))[None]
    assert found.shape == (1, math.ceil(4410 * 24_000 / 44_101))
    torch.testing.assert_close(found[:, 50:-50], expected[:, 50:-50], rtol=0, atol=2e-3)
