"""References: what is refused, and what a good one becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2 import CosyVoice2System, onnx_models
from wandlib.systems.cosyvoice2.features import flow_mel, speaker_features, whisper_mel
from wandlib.systems.cosyvoice2.onnx_models import SpeechTokenizer
from wandlib.systems.cosyvoice2.reference import check_audio, encode, read_audio

RATE = 24_000


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    samples = 0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate))
    return samples.astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(3 * RATE, np.float32), RATE, r"holds 0.00 s of sound in 3.00 s"),
        (noise(60), RATE, r"lasts 60.0 s, the limit is 30"),
        (noise(0.5), RATE, r"holds 0.50 s of sound"),
        (np.concatenate([noise(0.5), np.zeros(RATE * 5, np.float32)]), RATE, r"0.50 s of sound in 5.50 s"),
        (noise(3, 8_000), 8_000, r"8,000 samples a second, at least 16,000"),
        (np.full(3 * RATE, np.nan, np.float32), RATE, "NaN or infinite"),
    ],
    ids=["silent", "a minute", "short", "almost silent", "telephone", "not finite"],
)
def test_bad_recordings_are_refused(samples: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_audio(samples, rate)


def test_files_that_are_no_recordings(tmp_path: Path, tts: CosyVoice2System) -> None:
    (tmp_path / "words.wav").write_text("hello")
    with pytest.raises(InputError, match="is not audio that can be read"):
        read_audio(tmp_path / "words.wav")
    with pytest.raises(InputError, match=r"no reference file 'none.wav'"):
        tts.voice(tmp_path / "none.wav")
    with pytest.raises(InputError, match="has no voice of its own"):
        tts.voice(None)


def test_stereo_is_averaged(tmp_path: Path) -> None:
    left, right = noise(2), noise(2)[::-1]
    soundfile.write(tmp_path / "two.wav", np.stack((left, right), 1), RATE, subtype="FLOAT")
    samples, rate = read_audio(tmp_path / "two.wav")
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-6)
    assert rate == RATE


@pytest.mark.parametrize("seconds", [1.0, 1.03, 2.5])
@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_codes_and_mel_have_the_same_length(seconds: float, rate: int, tts: CosyVoice2System) -> None:
    reference = encode(noise(seconds, rate), rate, tts.voices.speech_tokenizer, tts.voices.speaker_encoder)
    assert reference.mel.shape == (1, 2 * len(reference.codes), 80)
    assert reference.speaker.shape == (1, 192)
    assert abs(len(reference.codes) - 25 * seconds) <= 2


def test_batches_of_recordings_get_the_same_codes(checkpoint: Path) -> None:
    one = SpeechTokenizer(checkpoint / "speech_tokenizer_v2.onnx")
    many = SpeechTokenizer(checkpoint / "speech_tokenizer_v2.batch.onnx")
    sounds = [noise(1.0, 16_000), noise(2.0, 16_000), noise(1.5, 16_000)]
    assert many.batch(sounds) == one.batch(sounds) == [one(sound) for sound in sounds]
    assert many.batch([]) == []


def test_onnxruntime_s_absence_is_said(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_models, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnxruntime.*pip install 'wandlib\[cosyvoice\]'"):
        SpeechTokenizer(checkpoint / "speech_tokenizer_v2.onnx")


def test_damaged_networks_are_named(tmp_path: Path) -> None:
    (tmp_path / "campplus.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot read campplus.onnx"):
        onnx_models.SpeakerEncoder(tmp_path / "campplus.onnx")


def test_speech_tokenizer_takes_30_seconds(checkpoint: Path) -> None:
    tokenizer = SpeechTokenizer(checkpoint / "speech_tokenizer_v2.onnx")
    assert len(tokenizer(noise(30, 16_000))) == 750
    with pytest.raises(InputError, match=r"31.0 s of sound, the speech tokenizer takes 30"):
        tokenizer(noise(31, 16_000))


def test_filter_banks_are_kaldi_s() -> None:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    samples = torch.from_numpy(noise(1, 16_000)) + 0.3 * torch.sin(torch.arange(16_000) * 0.05)
    torch.set_default_dtype(torch.float64)
    try:
        wanted = kaldi.fbank(samples[None].double(), num_mel_bins=80, dither=0, sample_frequency=16_000)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(
        speaker_features(samples), (wanted - wanted.mean(0, keepdim=True)).float(), atol=1e-4, rtol=0
    )


def test_spectrograms_follow_a_tone() -> None:
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)
    mel = flow_mel(tone)
    assert mel.shape == (50, 80)
    band = int(mel[25].argmax())
    louder = flow_mel(2 * tone)
    torch.testing.assert_close(louder[:, band] - mel[:, band], torch.full((50,), float(np.log(2))), atol=1e-3, rtol=0)
    assert whisper_mel(tone.numpy()[:16_000]).shape == (128, 100)
