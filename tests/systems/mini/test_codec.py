"""Features, codec and vocoder against slow second paths."""

import math

import numpy as np
import pytest
import torch

from wandlib.systems.mini.codec import CODES, LEVELS, Acoustics, Codec, FiniteScalarQuantizer
from wandlib.systems.mini.features import (
    BANDS,
    FFT,
    FLOOR,
    HOP,
    MEAN,
    SAMPLE_RATE,
    SAMPLES_PER_CODE,
    SCALE,
    WINDOW,
    LogMel,
)
from wandlib.systems.mini.vocoder import Vocoder, pulses


@pytest.mark.parametrize("samples", [1, 640, 641, 16_000, 12_345])
def test_four_frames_a_code(samples: int) -> None:
    mel = LogMel()(torch.randn(2, samples))
    assert mel.shape == (2, 4 * math.ceil(samples / SAMPLES_PER_CODE), BANDS)


def test_log_mel_of_one_frame_by_hand() -> None:
    sound = torch.randn(1, 6400, generator=torch.Generator().manual_seed(0))
    frame = 17
    start = frame * HOP - (FFT - HOP) // 2
    taper = np.zeros(FFT)
    taper[(FFT - WINDOW) // 2 : (FFT + WINDOW) // 2] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    spectrum = np.abs(np.fft.rfft(sound[0, start : start + FFT].numpy() * taper))
    module = LogMel()
    expected = (np.log(np.maximum(module.filters.numpy() @ spectrum, FLOOR)) - MEAN) / SCALE
    np.testing.assert_allclose(module(sound)[0, frame].numpy(), expected, atol=1e-4)


def test_every_code_survives_the_round_trip() -> None:
    quantizer = FiniteScalarQuantizer()
    codes = torch.arange(CODES)
    values = quantizer.values(codes)
    assert torch.equal(quantizer.indices(values), codes)
    assert values.min() == -1
    assert values.max() == 1
    assert len(torch.unique(values, dim=0)) == CODES == math.prod(LEVELS)


def test_quantized_values_are_levels_and_gradients_pass() -> None:
    quantizer = FiniteScalarQuantizer()
    values = torch.randn(100, 5, requires_grad=True)
    quantized = quantizer(values)
    assert torch.allclose(quantizer.values(quantizer.indices(quantized)), quantized)
    quantized.sum().backward()
    assert torch.allclose(values.grad, 1 - values.detach().tanh() ** 2)


def test_even_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        FiniteScalarQuantizer((4, 5))


def test_codec_shapes_and_bad_codes() -> None:
    torch.manual_seed(0)
    codec = Codec(width=16, encoder_layers=1, decoder_layers=1, fine_width=8, fine_layers=1, speaker_dims=4).eval()
    mel = torch.randn(2, 40, BANDS)
    speaker = codec.speaker(mel)
    codes = codec.encode(mel, speaker)
    assert codes.shape == (2, 10)
    assert codes.min() >= 0
    assert codes.max() < CODES
    out = codec.decode(codes, speaker)
    assert out.mel.shape == (2, 40, BANDS)
    assert out.pitch.shape == out.voicing.shape == (2, 40)
    for bad in (-1, CODES):
        with pytest.raises(ValueError, match=f"codes must be in \\[0, {CODES}\\)"):
            codec.decode(torch.full((1, 3), bad), speaker[:1])


def test_pulses_equal_the_sum_of_cosines() -> None:
    frames, hz = 20, 187.0
    made = pulses(torch.full((1, frames), math.log(hz / 120)), torch.ones(1, frames))[0].double()
    turns = torch.arange(1, frames * HOP + 1, dtype=torch.float64) * hz / SAMPLE_RATE
    count = int(SAMPLE_RATE / 2 / hz)
    slow = sum(torch.cos(2 * math.pi * n * turns) for n in range(1, count + 1)) * math.sqrt(2 / count)
    assert (made - slow).abs().max() < 0.02 * slow.abs().max()
    assert made.var().item() == pytest.approx(1, abs=0.1)


def test_unvoiced_is_silent_in_the_pulses() -> None:
    voiced = torch.zeros(1, 30)
    voiced[:, 10:20] = 1
    made = pulses(torch.zeros(1, 30), voiced)[0]
    assert made[: 9 * HOP].abs().max() == 0
    assert made[21 * HOP :].abs().max() == 0
    assert made[12 * HOP : 18 * HOP].abs().max() > 1


def test_a_flat_filter_changes_nothing() -> None:
    vocoder = Vocoder(width=8, layers=1)
    source = torch.randn(1, 50 * HOP, generator=torch.Generator().manual_seed(0))
    out = vocoder._filter(source, torch.zeros(1, 50, BANDS))
    torch.testing.assert_close(out[:, HOP:-HOP], source[:, HOP:-HOP], atol=1e-4, rtol=0)


def test_a_filter_is_causal_and_has_its_magnitude() -> None:
    vocoder = Vocoder(width=8, layers=1)
    source = torch.zeros(1, 50 * HOP)
    source[0, 25 * HOP] = 1
    bands = torch.linspace(0, -4, BANDS).expand(1, 50, BANDS)
    out = vocoder._filter(source, bands)[0]
    assert out[: 25 * HOP - 1].abs().max() < 1e-3
    magnitude = torch.fft.rfft(out[25 * HOP : 25 * HOP + FFT]).abs().log()
    torch.testing.assert_close(magnitude, bands[0, 0] @ vocoder.spread, atol=0.05, rtol=0)


def test_the_vocoder_speaks_at_the_pitch_asked_for_and_repeats_itself() -> None:
    vocoder = Vocoder(width=8, layers=1).eval()
    mel = torch.full((1, 100, BANDS), 1.0)
    acoustics = Acoustics(mel, torch.full((1, 100), math.log(160 / 120)), torch.ones(1, 100))
    with torch.inference_mode():
        sound = vocoder(acoustics)
        assert torch.equal(sound, vocoder(acoustics))
    assert sound.shape == (1, 100 * HOP)
    middle = sound[0, 4000:12_000]
    lags = torch.stack([(middle[:-400] * middle[lag : len(middle) - 400 + lag]).sum() for lag in range(60, 400)])
    assert int(lags[:100].argmax()) + 60 == SAMPLE_RATE // 160
