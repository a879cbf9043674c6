"""Spark-TTS from a folder to sound, on a tiny checkpoint; what a user can get wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
import torch
import yaml
from draws import DrawsOfGenerate, Script
from safetensors.torch import load_file

import wandlib
from wandlib.attention.models import cache_inputs
from wandlib.systems.base import InputError
from wandlib.systems.sparktts import tiny
from wandlib.systems.sparktts.prompt import START_CODES, Control, clone_prompt, control_prompt
from wandlib.systems.sparktts.system import SparkSystem
from wandlib.systems.students import write_back

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
    streamed = np.concatenate(list(system.stream("Hi there.", recording, "window", seed=2)))
    np.testing.assert_allclose(streamed, whole, atol=1e-5)


def test_tokens_are_those_of_generate(system: SparkSystem, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn as transformers draws, they are what stock ``generate`` gives under the same cache."""
    monkeypatch.setattr("wandlib.systems.sparktts.system.Sampler", DrawsOfGenerate)
    speech = system.synthesize("Hi there.", recording, "window", seed=9, window=16)
    model = system.language_model
    prompt = system.prompt("Hi there.", system.voice(recording), None, None)
    ids = system.tokenizer(prompt, return_tensors="pt").input_ids
    torch.manual_seed(9)
    expected = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=50,
        top_p=0.95,
        temperature=0.8,
        max_new_tokens=LIMIT,
        pad_token_id=0,
        **cache_inputs(model, wandlib.WandCache(model.config, window=16)),
    )
    assert speech.codes.tolist() == system.vocabulary.codes_in(expected[0, ids.shape[1] :].tolist()).tolist()


def spoken(system: SparkSystem, monkeypatch: pytest.MonkeyPatch, tokens: list[str]) -> None:
    """Let the model say ``tokens``."""
    script = Script([system.tokenizer.convert_tokens_to_ids(token) for token in tokens])
    monkeypatch.setattr("wandlib.systems.sparktts.system.Sampler", lambda *settings: script)


def test_a_described_voice_is_conditioning_until_the_codes_start(
    system: SparkSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated globals stay; the codes after them roll."""
    globals_ = [f"<|bicodec_global_{index}|>" for index in range(tiny.TOKENS)]
    codes = [f"<|bicodec_semantic_{index % tiny.CODES}|>" for index in range(100)]
    tokens = ["<|start_global_token|>", *globals_, "<|end_global_token|>", START_CODES, *codes, tiny.END]
    spoken(system, monkeypatch, tokens)
    speech = system.synthesize("Hi.", None, "window", gender="male", pitch="high", speed="low")
    assert speech.codes.tolist() == [index % tiny.CODES for index in range(100)]
    assert speech.trace.finish == "end"
    prompt = system.tokenizer(control_prompt("Hi.", Control("male", "high", "low"))).input_ids
    assert speech.trace.conditioning == len(prompt) + tiny.TOKENS + 3
    config = system.language_model.config
    entry = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.hidden_size // 4
    assert speech.trace.cache_bytes[-1] == entry * (speech.trace.conditioning + 64)
    streamed = np.concatenate(list(system.stream("Hi.", None, "window", gender="male", pitch="high", speed="low")))
    np.testing.assert_allclose(streamed, speech.waveform, atol=1e-5)


def test_a_described_voice_is_one_person_in_every_clause(system: SparkSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first clause generated is the reference of the others, whose prompts are those of a clone."""
    voices, prompts, decode, codes = [], [], system.codec.decode, SparkSystem.codes
    first = [3, 1, 4, 1, 5, 9, 2, 6]
    described = [f"<|bicodec_global_{token}|>" for token in first]
    begun = [*described, START_CODES, "<|bicodec_semantic_1|>", tiny.END]
    later = ["<|bicodec_global_7|>", START_CODES, "<|bicodec_semantic_2|>", tiny.END]

    def scripted(self: SparkSystem, utterance: Any, *arguments: Any) -> Any:
        tokens = later if prompts else begun
        utterance.choose = Script([system.tokenizer.convert_tokens_to_ids(token) for token in tokens])
        prompts.append((utterance.prompt[0].tolist(), utterance.conditioning_until is None))
        yield from codes(self, utterance, *arguments)

    def heard(made: torch.Tensor, voice: torch.Tensor) -> Any:
        voices.append(voice[0].tolist())
        return decode(made, voice)

    monkeypatch.setattr(SparkSystem, "codes", scripted)
    monkeypatch.setattr(system.codec, "decode", heard)
    speech = system.synthesize(["Hi there. ", "How are you? ", "Fine."], None, "window", gender="male")
    assert speech.codes.tolist() == [1, 2, 2]
    assert voices == [first] * 3
    expected = [control_prompt("Hi there.", Control("male")), clone_prompt("How are you?", first)]
    expected += [clone_prompt("Fine.", first)]
    ids = [system.tokenizer(prompt).input_ids for prompt in expected]
    assert prompts == list(zip(ids, [False, True, True], strict=True))


def test_a_described_voice_that_is_not_whole(system: SparkSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken(system, monkeypatch, ["<|bicodec_global_1|>", START_CODES, "<|bicodec_semantic_1|>", tiny.END])
    with pytest.raises(InputError, match="1 global tokens instead of 8: try another seed"):
        system.synthesize("Hi.", speed="low")


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
        ({"gender": "male"}, "either a reference or a described voice"),
        ({"pitch": "enormous"}, "pitch is one of very_low"),
        ({"voice": "nice"}, "no setting named 'voice'"),
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


def test_nothing_said_is_no_sound(system: SparkSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken(system, monkeypatch, [tiny.END])
    assert not len(system.synthesize("Hi.", gender="female").waveform)


def test_a_student_speaks_under_the_window_alone(folder: Path, tmp_path: Path, recording: Path) -> None:
    """Saved with its window, loaded by the registry, and written back with the config that upstream reads."""
    student = SparkSystem.load(folder).language_model
    with torch.no_grad():
        student.model.layers[0].mlp.down_proj.weight.add_(1.0)
    student.save_pretrained(tmp_path / "student")
    system = wandlib.load_system("sparktts", folder, student=tmp_path / "student")
    plain = wandlib.load_system("sparktts", folder)
    said = [
        speaker.synthesize("Hi.", recording, attention)
        for attention in ("full", "window")
        for speaker in (system, plain)
    ]
    assert np.array_equal(said[0].codes, said[1].codes)
    assert not np.array_equal(said[2].codes, said[3].codes)
    write_back(system.models["window"], folder / "LLM", tmp_path / "back")
    assert (tmp_path / "back" / "config.json").read_bytes() == (folder / "LLM" / "config.json").read_bytes()
    before, after = (load_file(path / "model.safetensors") for path in (folder / "LLM", tmp_path / "back"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.layers.0.mlp.down_proj.weight"}
