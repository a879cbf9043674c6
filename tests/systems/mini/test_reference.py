"""Reference audio: what is refused, with which words, and what comes out."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from wandlib.systems.base import InputError
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.reference import LEVEL, clean_reference, read_reference


def tone(seconds: float, rate: int = SAMPLE_RATE, hz: float = 200.0) -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_mono_or_stereo(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "reference.wav"
    soundfile.write(path, np.stack([tone(2.0, rate)] * channels, axis=1), rate)
    made = read_reference(path)
    assert made.dtype == np.float32
    assert len(made) == pytest.approx(2.0 * SAMPLE_RATE, abs=0.05 * SAMPLE_RATE)
    assert np.sqrt((made**2).mean()) == pytest.approx(LEVEL, rel=1e-3)
    spectrum = np.abs(np.fft.rfft(made))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(made) == pytest.approx(200, abs=2)


def test_silence_at_both_ends_is_cut() -> None:
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    made = clean_reference(np.concatenate((quiet, tone(2.0), quiet)), SAMPLE_RATE)
    assert len(made) == pytest.approx(2.16 * SAMPLE_RATE, abs=0.03 * SAMPLE_RATE)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (tone(0.1), "at least 1 s"),
        (np.zeros(2 * SAMPLE_RATE, np.float32), "silent"),
        (np.concatenate((tone(2.0), [np.nan])).astype(np.float32), "NaN"),
        (np.concatenate((tone(2.0), [np.inf])).astype(np.float32), "infinite"),
        (np.concatenate((tone(0.3), np.zeros(2 * SAMPLE_RATE, np.float32))), "only 0.38 s of sound"),
        (np.zeros(0, np.float32), "at least 1 s"),
        (np.concatenate((tone(0.3), np.full(2 * SAMPLE_RATE, 1e-30, np.float32))), "only 0.3"),
    ],
)
def test_bad_samples(samples: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        clean_reference(samples, SAMPLE_RATE)


def test_any_level_even_an_absurd_one() -> None:
    loud, quiet = clean_reference(tone(2.0) * np.float32(1e25), SAMPLE_RATE), clean_reference(tone(2.0), SAMPLE_RATE)
    np.testing.assert_allclose(loud, quiet, atol=1e-4)


@pytest.mark.parametrize("rate", [100, 3_999, 1_000_000])
def test_absurd_rates(rate: int) -> None:
    with pytest.raises(InputError, match=f"has {rate:,} samples a second"):
        clean_reference(np.ones(5 * rate, np.float32), rate)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no reference file 'missing\.wav'"):
        read_reference(tmp_path / "missing.wav")
    (tmp_path / "text.wav").write_text("not audio", encoding="utf-8")
    with pytest.raises(InputError, match="not audio"):
        read_reference(tmp_path / "text.wav")
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(InputError, match="not audio"):
        read_reference(tmp_path / "empty.wav")
    soundfile.write(tmp_path / "long.wav", np.tile(tone(10), 60), SAMPLE_RATE)
    with pytest.raises(InputError, match="lasts 600 s, the limit is 60"):
        read_reference(tmp_path / "long.wav")
    with (tmp_path / "huge.wav").open("wb") as file:
        file.truncate(60_000_000)
    with pytest.raises(InputError, match="60 MB, the limit is 50"):
        read_reference(tmp_path / "huge.wav")
    with pytest.raises(InputError, match="no reference file"):
        read_reference(tmp_path)
