"""Recognizers: tiny random ones in the real layout, saved and read again; PocketSphinx as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_instruments
import torch
from numpy.typing import NDArray
from torchaudio.pipelines import Wav2Vec2ASRBundle

from wandlib.evaluation.error_rates import count_errors
from wandlib.evaluation.recognizers import PocketSphinx, Whisper
from wandlib.evaluation.wav2vec2 import Wav2Vec2, ctc_text

LABELS = ("|", "A", "B", "C")


@pytest.fixture(scope="module")
def sound() -> NDArray[np.float32]:
    """A second at 16 kHz of what is neither silence nor a word."""
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * (200 + 300 * time) * time)
    return (0.3 * tone + 0.05 * np.random.default_rng(0).normal(size=len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Whisper:
    return Whisper(*tiny_instruments.whisper(tmp_path_factory.mktemp("whisper")))


def test_whisper_writes_what_its_model_may(whisper: Whisper, sound: NDArray[np.float32]) -> None:
    text = whisper(sound, 16_000)
    assert text
    assert set(text) <= set("hi")
    assert whisper(sound, 16_000) == text


def test_whisper_from_a_folder_is_the_same(tmp_path: Path, whisper: Whisper, sound: NDArray[np.float32]) -> None:
    model, processor = tiny_instruments.whisper(tmp_path)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    stored = Whisper(tmp_path)
    assert stored(sound, 16_000) == whisper(sound, 16_000)
    assert stored.normalize("Twenty-one colors") == whisper.normalize("Twenty-one colors") == "21 colors"


def test_whisper_is_told_the_language(
    whisper: Whisper, sound: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []
    generate = whisper._model.generate

    def spy(**inputs: object) -> torch.Tensor:
        starts.append((inputs["language"], inputs["task"], inputs["return_timestamps"]))
        return generate(**inputs)

    monkeypatch.setattr(whisper._model, "generate", spy)
    whisper(sound, 16_000)
    assert starts == [("en", "transcribe", False)]


@pytest.mark.parametrize(
    ("language", "text", "plain"),
    [
        ("zh", "今天，天气 5 度。", "今 天 天 气 5 度"),
        ("chinese", "今天，天气。", "今 天 天 气"),
        ("th", "สวัสดี", "ส วั ส ดี"),
        ("hi", "हिन्दी है।", "हिन्दी है"),
        ("de", "Mister Müller, zwei!", "mister müller zwei"),
        ("en", "Mr. Miller, two!", "mister miller 2"),
        ("English", "two", "2"),
    ],
)
def test_texts_are_normalized_in_their_language(language: str, text: str, plain: str, tmp_path: Path) -> None:
    """English's "mister" and "two" mean nothing elsewhere; Chinese has no spaces, so its words are characters."""
    model, processor = tiny_instruments.whisper(tmp_path)
    whisper = Whisper(model, processor, language=language)
    assert " ".join(whisper.normalize(text).split()) == plain
    counted = count_errors(text, text, whisper.normalize)
    assert (counted.word_errors, counted.words) == (0, len(plain.split()))


def test_characters_of_chinese_are_its_letters(tmp_path: Path) -> None:
    whisper = Whisper(*tiny_instruments.whisper(tmp_path), language="zh")
    counted = count_errors("今天天气很好。", "今天天七很好", whisper.normalize)
    assert (counted.character_errors, counted.characters) == (counted.word_errors, counted.words) == (1, 6)


def test_whisper_hears_past_half_a_minute(whisper: Whisper, sound: NDArray[np.float32]) -> None:
    """31 s are heard in more than one piece: more is written than one piece may hold."""
    assert len(whisper(np.tile(sound, 31), 16_000)) > len(whisper(np.tile(sound, 29), 16_000))


def test_a_ready_whisper_needs_its_processor(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass processor="):
        Whisper(tiny_instruments.whisper(tmp_path)[0])


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path.name)):
        Whisper(tmp_path)


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Wav2Vec2ASRBundle]:
    """A bundle whose weights are in ``tmp_path``, where its download would have put them."""
    torch.save(tiny_instruments.wav2vec2(5).state_dict(), tmp_path / "tiny.pth")
    parameters = tiny_instruments.WAV2VEC2 | {"aux_num_out": 5}
    return Wav2Vec2ASRBundle("tiny.pth", parameters, 16_000, False, "Wav2Vec2", _labels=LABELS, _remove_aux_axis=())


def test_wav2vec2_reads_the_weights_of_its_bundle(
    tmp_path: Path, bundle: Wav2Vec2ASRBundle, sound: NDArray[np.float32]
) -> None:
    recognize = Wav2Vec2(bundle, folder=tmp_path)
    with torch.inference_mode():
        frames = tiny_instruments.wav2vec2(5)(torch.from_numpy(sound)[None])[0][0].argmax(-1)
    assert recognize(sound, 16_000) == ctc_text(frames.tolist(), ("-", *LABELS))
    assert recognize(sound[:399], 16_000) == ""


def test_wav2vec2_refuses_what_unpickles_to_code(tmp_path: Path, bundle: Wav2Vec2ASRBundle) -> None:
    torch.save({"weights": Path}, tmp_path / "tiny.pth")
    with pytest.raises(Exception, match="weights_only"):
        Wav2Vec2(bundle, folder=tmp_path)


def test_wav2vec2_names_its_bundles() -> None:
    with pytest.raises(ValueError, match=r"no ASR bundle named 'wav2vec3'.*WAV2VEC2_ASR_BASE_960H"):
        Wav2Vec2("wav2vec3")


def test_ctc_text_by_hand() -> None:
    labels = ("-", "|", "A", "B")
    assert ctc_text([0, 2, 2, 0, 2, 3, 3, 1, 1, 0, 3, 1], labels) == "AAB B"
    assert ctc_text([0, 0], labels) == ""


@pytest.fixture(scope="module")
def sphinx() -> PocketSphinx:
    return PocketSphinx()


def test_pocketsphinx_remembers_nothing(sphinx: PocketSphinx, sound: NDArray[np.float32]) -> None:
    """What it heard before changes nothing."""
    half = sound[:8000]
    first = sphinx(half, 16_000)
    sphinx(sound[8000:], 16_000)
    assert sphinx(half, 16_000) == first
    assert sphinx(half[:0], 16_000) == ""


def test_pocketsphinx_refuses_what_is_no_sound(sphinx: PocketSphinx) -> None:
    with pytest.raises(ValueError, match="NaN"):
        sphinx(np.full(16_000, np.nan, np.float32), 16_000)
    with pytest.raises(ValueError, match=r"mono waveform of shape \[samples\], got \[2, 50\]"):
        sphinx(np.zeros((2, 50), np.float32), 16_000)
