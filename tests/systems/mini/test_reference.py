"""Reference audio: what is refused, with which words, and what comes out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wandlib.systems import load_system
from wandlib.systems.base import InputError
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.reference import LEVEL, check_header, clean_reference, read_reference


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


@pytest.mark.parametrize("ending", [".raw", ".xi", ".flac"])
def test_a_file_that_does_not_tell_enough_is_refused(tmp_path: Path, ending: str) -> None:
    """No rate in a .raw; no seeking in an .xi; a FLAC as encoders write it into a pipe, of unknown length."""
    path = tmp_path / f"voice{ending}"
    if ending == ".raw":
        path.write_bytes(tone(2.0).tobytes())
    else:
        soundfile.write(path, tone(2.0, 44_100), 44_100, subtype="DPCM_16" if ending == ".xi" else None)
    if ending == ".flac":
        data = bytearray(path.read_bytes())
        data[21] &= 0xF0  # the number of samples has the last 36 of these bits
        data[22:26] = bytes(4)
        path.write_bytes(data)
    with pytest.raises(InputError, match=r"'voice.* (is not audio that can be read|does not say how long it is)"):
        read_reference(path)


def test_any_level_that_sound_can_have() -> None:
    loud, quiet = clean_reference(tone(2.0) * np.float32(900), SAMPLE_RATE), clean_reference(tone(2.0), SAMPLE_RATE)
    np.testing.assert_allclose(loud, quiet, atol=1e-4)
    with pytest.raises(InputError, match="samples up to 1e\\+25, full scale is 1: export it as 16-bit audio"):
        clean_reference(np.full(32_000, 1e25, np.float32), SAMPLE_RATE)


@pytest.mark.parametrize("rate", [100, 3_999, 1_000_000])
def test_absurd_rates(rate: int) -> None:
    with pytest.raises(InputError, match=f"has {rate:,} samples a second"):
        clean_reference(np.ones(5 * rate, np.float32), rate)


@pytest.mark.parametrize(
    ("rate", "channels", "frames", "words"),
    [
        (655_350, 8, 655_350, "has 655,350 samples a second"),
        (2_000, 1, 8_000, "has 2,000 samples a second"),
        (16_000, 9, 16_000, "has 9 channels, the limit is 8: export it as mono"),
        (48_000, 1, 48_000 * 61, "lasts 61 s, the limit is 60"),
        (192_000, 8, 192_000 * 20, "has 31 million samples in 8 channels, the limit is 25 million"),
    ],
)
def test_headers_that_are_refused(rate: int, channels: int, frames: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_header(rate, channels, frames)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence at the highest rate of FLAC: a few kB that would become gigabytes."""
    path = tmp_path / "bomb.flac"
    soundfile.write(path, np.zeros((655_350, 8), np.int16), 655_350)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(soundfile.SoundFile, "blocks", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(InputError, match="has 655,350 samples a second"):
        read_reference(path)


def test_many_channels_take_little_memory(tmp_path: Path) -> None:
    """Decoded at once, the largest file that is allowed takes 92 MB in 32 bits, and its mono mean as much again."""
    path = tmp_path / "channels.flac"
    with soundfile.SoundFile(path, "w", 48_000, 8) as file:
        for _ in range(58):
            file.write(np.repeat(tone(1.0, 48_000)[:, None], 8, axis=1))
    program = (
        "import resource, sys; from wandlib.systems.mini.reference import read_reference; import soxr, numpy as np; "
        "soxr.resample(np.zeros(48_000), 48_000, 16_000); "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; made = read_reference(sys.argv[1]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(made))"
    )
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    kilobytes, samples = map(int, run.stdout.split())
    assert samples == pytest.approx(58 * SAMPLE_RATE, abs=SAMPLE_RATE // 10)
    assert kilobytes < 60_000


def test_blocks_are_what_the_whole_file_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stereo = rng.normal(0, 0.1, (150_001, 2)).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", stereo, 44_100, subtype="FLOAT")
    expected = clean_reference(stereo.mean(axis=1), 44_100)
    made = read_reference(tmp_path / "noise.wav")
    assert len(made) == len(expected)
    np.testing.assert_allclose(made, expected, atol=2e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_in_a_file(tmp_path: Path, value: float) -> None:
    sound = tone(8.0)
    sound[100_000] = value
    soundfile.write(tmp_path / "nan.wav", sound, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="NaN or infinite"):
        read_reference(tmp_path / "nan.wav")


def test_what_is_no_path() -> None:
    """In a process of its own: here the types of arguments are checked before."""
    program = """
import numpy as np, wandlib
tts = wandlib.load_system("mini")
for given in (5, b"ruth", np.zeros(16_000, np.float32), ["ruth"]):
    try:
        tts.voice(given)
    except wandlib.InputError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert [line.partition(": sound in memory")[0] for line in run.stdout.splitlines()] == [
        f"a reference is the name of a built-in speaker or the path of an audio file, not {name}"
        for name in ("int", "bytes", "ndarray", "list")
    ]


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".wav", "a\0b", "a\0b.wav"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    with pytest.raises(InputError, match=r"no speaker named|no reference file"):
        load_system("mini").voice(name)  # type: ignore[attr-defined]


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
