"""NeuTTS and Llasa on tiny weights of the classes that they consist of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
import tiny_codec_lm
import torch
from draws import DrawsOfGenerate

import wandlib
from wandlib.attention.models import cache_inputs
from wandlib.systems.base import InputError
from wandlib.systems.codec_lm import dialects
from wandlib.systems.codec_lm.dialects import END, NEUTTS, START
from wandlib.systems.codec_lm.system import CodecLMSystem
from wandlib.systems.espeak import ONE_READER


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wandlib.systems.codec_lm.system.CONTEXT", 300)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings.write(tmp_path_factory.mktemp("voices") / "voice.wav", seconds=1.0)


@pytest.fixture(scope="module", params=["neutts", "llasa"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    language, codec = tiny_codec_lm.write(request.param, tmp_path_factory.mktemp(request.param))
    return request.param, language, codec


@pytest.fixture(scope="module")
def system(folders: tuple[str, Path, Path]) -> CodecLMSystem:
    name, language, codec = folders
    return wandlib.load_system(name, language, codec=codec)


def test_speech(system: CodecLMSystem, recording: Path) -> None:
    spoken = {
        attention: system.synthesize("HI.", recording, attention, transcript="YOU.", seed=1, window=16)
        for attention in ("window", "full")
    }
    speech = spoken["window"]
    hop = 480 if system.name == "neutts" else 320
    assert speech.sample_rate == hop * 50
    assert abs(len(speech.waveform) - hop * len(speech.codes)) <= hop
    assert len(speech.codes) > 0
    assert len({step.cache_bytes for step in speech.trace.steps[20:]}) == 1, "the cache grows with the window full"
    assert spoken["full"].trace.cache_bytes[-1] > speech.trace.cache_bytes[-1]
    assert not np.array_equal(spoken["full"].codes, speech.codes), "the window makes no difference"
    assert np.array_equal(
        next(system.stream("HI.", recording, "window", transcript="YOU.", seed=1, window=16)), speech.waveform
    )


def test_tokens_are_those_of_generate(system: CodecLMSystem, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn as transformers draws, they are what stock ``generate`` gives under the same cache."""
    monkeypatch.setattr("wandlib.systems.codec_lm.system.Sampler", DrawsOfGenerate)
    dialect, model = system.dialect, system.language_model
    speech = system.synthesize("HI.", recording, "window", transcript="YOU.", seed=7)
    prompt = system._prompt("HI.", recording, "YOU.")
    end = system.tokenizer.convert_tokens_to_ids(END)
    torch.manual_seed(7)
    tokens = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        temperature=dialect.temperature,
        top_k=dialect.top_k,
        top_p=1.0,
        min_new_tokens=dialect.least,
        max_new_tokens=300 - prompt.shape[1],
        eos_token_id=end,
        pad_token_id=end,
        **cache_inputs(model, wandlib.WandCache(model.config, window=64)),
    )[0, prompt.shape[1] :].tolist()
    assert speech.codes.tolist() == [system._codes[token] for token in tokens if token in system._codes]
    assert (speech.trace.finish == "end") == (tokens[-1] == end)


def test_prompts(system: CodecLMSystem) -> None:
    text = system.tokenizer.decode(system.dialect.prompt(system.tokenizer, "HI.", "YOU.", [3, 5]))
    code = system.dialect.code
    assert text.endswith(START + code.format(3) + code.format(5))
    if system.name == "llasa":
        said = "Convert the text to speech:<|TEXT_UNDERSTANDING_START|>YOU. HI.<|TEXT_UNDERSTANDING_END|>"
        assert text.startswith(f"<|start|>user<|stop|>{said}<|eot|><|start|>assistant<|stop|>")
        assert system.tokenizer.decode(system.dialect.prompt(system.tokenizer, "HI.", None, [])).endswith(START)
    else:
        phones = "juː. hˈaɪ."
        assert text.startswith(
            f"user: Convert the text to speech:<|TEXT_PROMPT_START|>{phones}<|TEXT_PROMPT_END|>\nassistant:"
        )


def test_what_espeak_reads_in_another_voice_has_no_marks_of_it() -> None:
    phones = NEUTTS.phones("안녕하세요 नमस्ते hello")
    assert "həlˈoʊ" in phones
    assert "(" not in phones
    with pytest.raises(InputError, match="espeak reads nothing in '٣٤'"):
        NEUTTS.phones("٣٤")


def test_llasa_needs_no_reference(system: CodecLMSystem) -> None:
    if system.name == "llasa":
        assert len(system.synthesize("HI.", seed=1).codes) > 0
    else:
        with pytest.raises(InputError, match="NeuTTS needs a reference"):
            system.synthesize("HI.")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": "?"}, "nothing to say"),
        ({"text": "a <|eot|>"}, "special token"),
        ({"transcript": None}, "both or neither"),
        ({"transcript": "a \ud83d"}, "half of a character"),
        ({"transcript": 5}, "transcript is a str, not 5"),
        ({"text": "long " * 100}, "trained on 300"),
        ({"window": 0}, "at least 1 key"),
        ({"reference": "nowhere.wav"}, "no reference file"),
    ],
)
def test_what_cannot_be_used(settings: dict[str, Any], message: str, system: CodecLMSystem, recording: Path) -> None:
    with pytest.raises(InputError, match=message):
        system.synthesize(**{"text": "HI.", "reference": recording, "transcript": "YOU.", **settings})


def test_folders_that_do_not_fit(folders: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, language, codec = folders
    kind = tiny_codec_lm.SYSTEMS[name]
    other = next(system for key, system in tiny_codec_lm.SYSTEMS.items() if key != name)
    with pytest.raises(InputError, match=f"holds {kind.dialect.codec}, {other.name} needs {other.dialect.codec}"):
        other.load(language, codec=codec)
    with pytest.raises(FileNotFoundError, match=r"no config\.json .*hf download"):
        kind.load(tmp_path, codec=codec)
    with pytest.raises(FileNotFoundError, match=r"no preprocessor_config\.json"):
        kind.load(language, codec=language)
    with pytest.raises(InputError, match="holds NeuTTS or Llasa, not Spark-TTS"):
        wandlib.load_system("sparktts", language)
    (tmp_path / "BiCodec").mkdir()
    with pytest.raises(InputError, match="holds Spark-TTS, not NeuTTS or Llasa"):
        kind.load(tmp_path)
    assert kind.load(language).codec.config.model_type == kind.dialect.codec


def test_one_thread_at_a_time_reads_with_espeak(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its state in one place: another thread's words came out of it."""

    def read(texts: list[str]) -> list[str]:
        assert ONE_READER.locked()
        return texts

    monkeypatch.setattr(dialects, "espeak", lambda: read)
    assert NEUTTS.phones("a  b") == "a b"  # type: ignore[attr-defined]
