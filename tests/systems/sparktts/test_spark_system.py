"""Spark-TTS from a folder to sound, on a tiny checkpoint; what a user can get wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
import torch
import yaml
from transformers import DynamicCache

import wandlib
from wandlib.attention.models import cache_inputs
from wandlib.systems.base import InputError
from wandlib.systems.sparktts import tiny
from wandlib.systems.sparktts.prompt import START_CODES, Control, clone_prompt, control_prompt
from wandlib.systems.sparktts.system import SparkSystem
from wandlib.systems.token_loop import Sampler, decode

LIMIT = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("spark"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings.write(tmp_path_factory.mktemp("voices") / "voice.wav")


@pytest.fixture(scope="module")
def system(folder: Path) -> SparkSystem:
    return SparkSystem.load(folder)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wandlib.systems.sparktts.system.MAXIMUM_TOKENS", LIMIT)


def test_a_checkpoint_is_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2_000_000


@pytest.mark.parametrize("transcript", [None, "hello"])
def test_speech(transcript: str | None, system: SparkSystem, recording: Path) -> None:
    steps = []
    speech = system.synthesize(
        "Hi there.", recording, "window", transcript=transcript, seed=2, on_step=steps.append, window=20
    )
    assert speech.sample_rate == 16_000
    assert len(speech.waveform) == 320 * len(speech.codes) > 0
    assert speech.trace.steps == steps
    assert len({step.cache_bytes for step in steps[30:]}) == 1, "the cache grows with the window full"
    full = system.synthesize("Hi there.", recording, "full", transcript=transcript, seed=2)
    assert full.trace.window is None
    assert full.trace.cache_bytes[-1] > speech.trace.cache_bytes[-1]
    assert not np.array_equal(full.codes, speech.codes), "the window makes no difference"


def test_the_same_seed_says_the_same(system: SparkSystem, recording: Path) -> None:
    first, second, other = (system.synthesize("Hi.", recording, "window", seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.waveform, second.waveform)
    assert not np.array_equal(first.codes, other.codes)


def test_a_stream_is_the_speech(system: SparkSystem, recording: Path) -> None:
    whole = system.synthesize("Hi there.", recording, "window", seed=2).waveform
    np.testing.assert_allclose(np.concatenate(list(system.stream("Hi there.", recording, "window", seed=2))), whole)


def test_tokens_are_those_of_generate(system: SparkSystem) -> None:
    """The loop draws as transformers does."""
    model = system.language_model
    ids = system.tokenizer("Hi there.", return_tensors="pt").input_ids
    cache = wandlib.WandCache(model.config, window=16)
    found = [token for token, _ in decode(model, ids, cache, Sampler(9, 0.8, 50, 0.95), 60)]
    torch.manual_seed(9)
    expected = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=50,
        top_p=0.95,
        temperature=0.8,
        max_new_tokens=60,
        eos_token_id=None,
        pad_token_id=0,
        **cache_inputs(model, wandlib.WandCache(model.config, window=16)),
    )
    assert found == expected[0, ids.shape[1] :].tolist()


def spoken(system: SparkSystem, monkeypatch: pytest.MonkeyPatch, tokens: list[str]) -> dict[str, Any]:
    """Let the model say ``tokens``; what the cache was made with."""
    caches: dict[str, Any] = {}

    def said(model: Any, prompt: Any, cache: Any, *rest: Any) -> Iterator[tuple[int, float]]:
        caches["cache"] = cache
        name = cache_inputs(model, cache)
        new = prompt
        for token in tokens:
            model(input_ids=new, use_cache=True, **name)
            caches[token] = cache.generated if isinstance(cache, wandlib.WandCache) else None
            new = torch.tensor([[system.tokenizer.convert_tokens_to_ids(token)]])
            yield int(new), 1.0

    monkeypatch.setattr("wandlib.systems.sparktts.system.decode", said)
    return caches


def test_a_described_voice_is_conditioning_until_the_codes_start(
    system: SparkSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated globals stay; the codes after them roll."""
    globals_ = [f"<|bicodec_global_{index}|>" for index in range(tiny.TOKENS)]
    codes = [f"<|bicodec_semantic_{index % tiny.CODES}|>" for index in range(100)]
    tokens = ["<|start_global_token|>", *globals_, "<|end_global_token|>", START_CODES, *codes, tiny.END]
    seen = spoken(system, monkeypatch, tokens)
    speech = system.synthesize("Hi.", None, "window", control=Control("male", "high", "low"))
    assert speech.codes.tolist() == [index % tiny.CODES for index in range(100)]
    assert speech.trace.finish == "end"
    prompt = system.tokenizer(control_prompt("Hi.", Control("male", "high", "low"))).input_ids
    assert speech.trace.conditioning == len(prompt) + tiny.TOKENS + 3
    assert int(seen[tiny.END]) == 100, "only the codes count as generated"
    held = seen["cache"].layers[0].keys.shape[2]
    assert held == speech.trace.conditioning + 64


def test_a_described_voice_that_is_not_whole(system: SparkSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken(system, monkeypatch, ["<|bicodec_global_1|>", START_CODES, "<|bicodec_semantic_1|>", tiny.END])
    with pytest.raises(InputError, match="1 global tokens instead of 8: try another seed"):
        system.synthesize("Hi.", control=Control())


def test_a_transcript_pins_the_codes_of_the_reference(system: SparkSystem, recording: Path) -> None:
    """They are in the prompt, all of them visible: a cache by kind, not by token, one for each call."""
    voice = system.voice(recording)
    prompt = clone_prompt("Hi.", voice.tokens.tolist(), "you", voice.codes.tolist())
    assert prompt.count("bicodec_semantic") == len(voice.codes) == 99
    speech = system.synthesize("Hi.", recording, "window", transcript="you", window=8)
    assert speech.trace.conditioning == len(system.tokenizer(prompt).input_ids) > 99
    alone = system.synthesize("Hi.", recording, "window", window=8)
    assert speech.trace.conditioning > alone.trace.conditioning + 99


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": "  "}, "nothing to say"),
        ({"text": "?!..."}, "nothing to say"),
        ({"text": "a <|im_end|> b"}, "special token"),
        ({"window": 0}, "at least 1 key"),
        ({"temperature": 3.0}, "between 0"),
        ({"top_p": 0.0}, "above 0"),
        ({"seed": -1}, "between 0"),
        ({"reference": None}, "no voice of its own"),
        ({"control": Control()}, "either a reference or a control"),
        ({"transcript": ""}, "nothing to say"),
        ({"reference": "no such file.wav"}, "no reference file"),
    ],
)
def test_what_cannot_be_used(settings: dict[str, Any], message: str, system: SparkSystem, recording: Path) -> None:
    with pytest.raises(InputError, match=message):
        system.synthesize(**{"text": "Hi.", "reference": recording, "attention": "window", **settings})


@pytest.mark.parametrize(
    ("seconds", "level", "message"), [(0.2, 0.3, "0.20 s"), (61.0, 0.3, "61 s, the limit is 60"), (2.0, 0.0, "silent")]
)
def test_recordings_that_cannot_be_used(
    seconds: float, level: float, message: str, system: SparkSystem, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        system.voice(recordings.write(tmp_path / "voice.wav", seconds, 16_000, level))


def test_a_control_outside_its_range() -> None:
    with pytest.raises(InputError, match="pitch is one of very_low"):
        Control(pitch="enormous")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_the_first_missing_file_is_named(copy: Path) -> None:
    (copy / "BiCodec" / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no BiCodec/model\.safetensors .* move 'LLM/model\.safetensors' there"
    ):
        SparkSystem.load(copy)
    shutil.rmtree(copy / "LLM")
    with pytest.raises(FileNotFoundError, match=r"no LLM/config\.json .*hf download SparkAudio/Spark-TTS-0\.5B"):
        SparkSystem.load(copy)
    with pytest.raises(FileNotFoundError, match="no folder"):
        SparkSystem.load(copy / "nowhere")


def test_another_system_is_recognized(copy: Path) -> None:
    (copy / "bigvgan_generator.pth").touch()
    with pytest.raises(InputError, match="holds IndexTTS, not Spark-TTS"):
        SparkSystem.load(copy)


def test_settings_that_would_run_code(copy: Path) -> None:
    (copy / "BiCodec" / "config.yaml").write_text("audio_tokenizer: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(InputError, match="not plain YAML"):
        SparkSystem.load(copy)


def test_weights_of_another_size(copy: Path) -> None:
    path = copy / "BiCodec" / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["audio_tokenizer"]["quantizer"]["codebook_size"] = 60
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(InputError, match=r"quantizer\.codebook\.weight .* shape \[64, 8\]"):
        SparkSystem.load(copy)


def test_a_tokenizer_without_the_codes(copy: Path) -> None:
    text = (copy / "LLM" / "tokenizer.json").read_text(encoding="utf-8")
    (copy / "LLM" / "tokenizer.json").write_text(text.replace("bicodec_semantic_7|", "other_7|"), encoding="utf-8")
    with pytest.raises(InputError, match=r"no <\|bicodec_semantic_7\|>"):
        SparkSystem.load(copy)


def test_full_attention_keeps_everything(system: SparkSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spoken(system, monkeypatch, [tiny.END])
    assert not len(system.synthesize("Hi.", control=Control()).waveform)
    assert type(seen["cache"]) is DynamicCache
