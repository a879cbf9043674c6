"""The whole path on a tiny checkpoint: text and a reference in, sound out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wandlib
from wandlib.systems.base import InputError, Step
from wandlib.systems.cosyvoice2 import CosyVoice2System
from wandlib.systems.cosyvoice2.flow import NOISE_FRAMES, published_noise
from wandlib.systems.cosyvoice2.reference import Reference
from wandlib.systems.cosyvoice2.streaming import AcousticStream, cross_fade
from wandlib.systems.cosyvoice2.system import MAXIMUM_CODES, CosyVoice2Settings
from wandlib.systems.cosyvoice2.tiny import language_model
from wandlib.systems.memory import explained_memory

TEXT = "Hello there, how are you today?"


@pytest.mark.parametrize("attention", ["full", "window"])
@pytest.mark.parametrize(
    "prompt",
    [{"transcript": "What it says."}, {}, {"instruct": "Be glad."}],
    ids=["continued", "cross-lingual", "instructed"],
)
def test_text_becomes_sound(prompt: dict[str, str], attention: Any, tts: CosyVoice2System, recording: Path) -> None:
    steps: list[Step] = []
    speech = tts.synthesize(TEXT, recording, attention, window=8, on_step=steps.append, **prompt)
    assert speech.sample_rate == 24_000
    assert len(speech.waveform) == 960 * len(speech.codes)
    assert np.abs(speech.waveform).max() <= 0.99
    assert speech.waveform.std() > 1e-3
    assert speech.trace.steps == steps
    assert speech.trace.parts == [len(speech.codes)]
    text = len(tts.tokenizer(TEXT))
    assert 2 * text <= len(speech.codes) <= 20 * text


def test_prompt_of_each_mode(tts: CosyVoice2System, recording: Path) -> None:
    text = len(tts.tokenizer(TEXT))
    codes = len(tts.voice(recording).reference.codes)
    lengths = {
        "continued": 2 + text + len(tts.tokenizer("What it says.")) + codes,
        "cross-lingual": 2 + text,
        "instructed": 2 + text + len(tts.tokenizer("Be glad.<|endofprompt|>")),
    }
    given: dict[str, dict[str, str]] = {
        "continued": {"transcript": "What it says."},
        "cross-lingual": {},
        "instructed": {"instruct": "Be glad."},
    }
    for mode, prompt in given.items():
        assert tts.synthesize(TEXT, recording, **prompt).trace.conditioning == lengths[mode]


def test_cache_is_bounded_under_the_window(tts: CosyVoice2System, recording: Path) -> None:
    window = tts.synthesize(TEXT, recording, "window", window=8).trace.cache_bytes
    full = tts.synthesize(TEXT, recording, "full").trace.cache_bytes
    assert len(set(window)) == 1
    assert full == sorted(set(full))
    assert window[0] < full[-1]


def test_a_window_that_holds_everything_is_full_attention(tts: CosyVoice2System, recording: Path) -> None:
    full = tts.synthesize(TEXT, recording, "full", seed=3)
    wide = tts.synthesize(TEXT, recording, "window", window=10_000, seed=3)
    narrow = tts.synthesize(TEXT, recording, "window", window=1, seed=3)
    assert np.array_equal(full.codes, wide.codes)
    assert not np.array_equal(full.codes, narrow.codes)


def test_seed_decides_and_the_global_generator_is_left_alone(tts: CosyVoice2System, recording: Path) -> None:
    state = torch.get_rng_state()
    one, two, three = (tts.synthesize(TEXT, recording, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.waveform, two.waveform)
    assert not np.array_equal(one.codes, three.codes)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("attention", ["full", "window"])
def test_stream_speaks_the_same_codes_in_pieces(attention: Any, tts: CosyVoice2System, recording: Path) -> None:
    whole = tts.synthesize(TEXT * 2, recording, attention, transcript="What it says.")
    pieces = list(tts.stream(TEXT * 2, recording, attention, transcript="What it says."))
    assert len(pieces) > 1
    assert sum(map(len, pieces)) == len(whole.waveform)


def test_stream_starts_before_the_codes_end(tts: CosyVoice2System, recording: Path) -> None:
    steps: list[Step] = []
    stream = tts.stream(TEXT * 2, recording, on_step=steps.append)
    first = next(stream)
    then = len(steps)
    rest = list(stream)
    assert len(first) == 25 * 960 - 8 * 480, "75 codes of reference are whole blocks"
    assert then <= 28 < len(steps)
    assert rest


def acoustic(tts: CosyVoice2System, reference: Reference, codes: list[int]) -> list[np.ndarray]:
    stream = AcousticStream(tts.flow, tts.vocoder, reference, torch.Generator().manual_seed(0))
    sounds = [*(stream.push(code) for code in codes), stream.finish()]
    return [sound for sound in sounds if len(sound)]


def test_pieces_do_not_depend_on_what_comes_later(tts: CosyVoice2System, recording: Path) -> None:
    reference = tts.voice(recording).reference
    reference = Reference(reference.codes[:40], reference.mel[:, :80], reference.speaker)
    codes = np.random.default_rng(0).integers(0, 243, 300).tolist()
    short, long = acoustic(tts, reference, codes[:150]), acoustic(tts, reference, codes)
    sizes = [len(piece) for piece in long[:-1]]
    assert sizes == [960 * n - cut for n, cut in ((35, 3840), (50, 0), (100, 0), (100, 0))]
    for early, late in zip(short[:-1], long, strict=False):
        np.testing.assert_allclose(early, late, atol=1e-5, rtol=0)
    assert sum(map(len, long)) == 960 * len(codes)


def test_cross_fade_goes_from_one_to_the_other() -> None:
    faded = cross_fade(torch.zeros(1, 100), torch.ones(1, 150))[0]
    assert bool((faded[:100].diff() >= 0).all())
    assert bool((faded[100:] == 1).all())
    assert faded[0] < 0.1 < 0.95 < faded[99]


def test_noise_is_the_published_one_and_ends_at_300_s() -> None:
    torch.manual_seed(0)
    wanted = torch.randn([1, 80, 50 * 300])[..., :99]
    assert torch.equal(published_noise(80, 99), wanted)
    with pytest.raises(InputError, match=r"301 s, the limit of one part is 300"):
        published_noise(80, NOISE_FRAMES + 50)


def test_long_texts_are_spoken_in_parts(tts: CosyVoice2System, recording: Path) -> None:
    sentence = "One two three four five six seven eight nine ten."
    speech = tts.synthesize(" ".join([sentence] * 4), recording)
    assert len(speech.trace.parts) == len(tts.count_symbols(" ".join([sentence] * 4))) > 1
    assert sum(speech.trace.parts) == len(speech.codes)


def test_a_generation_without_an_end_stops_at_the_limit(tts: CosyVoice2System, recording: Path) -> None:
    model = language_model()
    model.lm_head.bias.data[model.config.end :] = -1000.0
    endless = CosyVoice2System(
        model, tts.flow, tts.vocoder, tts.tokenizer, tts.voices.speech_tokenizer, tts.voices.speaker_encoder
    )
    speech = endless.synthesize("Hi.", recording)
    assert speech.trace.finish == "limit"
    assert len(speech.codes) == 20 * len(tts.tokenizer("Hi."))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0, "attention": "window"}, "at least 1 key"),
        ({"seed": -1}, "the seed is"),
        ({"transcipt": "a"}, "no setting named 'transcipt'"),
        ({"temperature": 0.5}, "takes no temperature"),
        ({"transcript": "a", "instruct": "b"}, "one of the two"),
        ({"transcript": "  "}, "the transcript is empty"),
        ({"text": "?!"}, "nothing to pronounce"),
        ({"text": "a" * 20_001}, "20,001 characters"),
        ({"text": "<|a|>" + "word " * 500}, r"the limit is 400"),
        ({"reference": None}, "no voice of its own"),
    ],
)
def test_bad_input(arguments: dict[str, Any], message: str, tts: CosyVoice2System, recording: Path) -> None:
    given = {"text": TEXT, "reference": recording} | arguments
    with pytest.raises(InputError, match=message):
        tts.synthesize(**given)
    with pytest.raises(InputError, match=message):
        list(tts.stream(**given))


def test_words_that_are_still_written_are_spoken_clause_by_clause(tts: CosyVoice2System, recording: Path) -> None:
    stream = tts.stream(iter(["Hello there, my dear fri", "end. How are ", "you today?"]), recording)
    assert len(list(stream)) >= 2
    assert len(stream.trace.parts) >= 2


def test_a_part_ends_where_the_flow_can_still_voice_it(
    tts: CosyVoice2System, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = len(tts.voice(recording).reference.codes)
    monkeypatch.setattr("wandlib.systems.cosyvoice2.system.MAXIMUM_CODES", codes + 12)
    parts = tts.utterances(iter(["Hello there, my friend."]), recording, CosyVoice2Settings(), streaming=False)
    assert next(parts).limit == 12
    assert NOISE_FRAMES // 2 == MAXIMUM_CODES


def test_registry_loads_it(checkpoint: Path) -> None:
    assert isinstance(wandlib.load_system("cosyvoice2", checkpoint), CosyVoice2System)


def test_tags_reach_the_tokenizer(tts: CosyVoice2System) -> None:
    [tokens] = tts.parts("Be glad<|endofprompt|>It is 5.")
    assert tts.tokenizer("<|endofprompt|>")[0] in tokens


def test_memory_that_runs_out_is_explained() -> None:
    with (
        pytest.raises(InputError, match=r"too little memory: load with dtype=torch.bfloat16"),
        explained_memory(),
    ):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def test_students_speak_under_the_window(checkpoint: Path, recording: Path, tmp_path: Path) -> None:
    student = language_model()
    student.config.wand = {"window": 5, "conditioning_until": None}
    student.save_pretrained(tmp_path)
    tts = CosyVoice2System.load(checkpoint, student=tmp_path)
    assert tts.window == 5
    assert tts.models["full"] is not tts.models["window"]
    assert tts.synthesize(TEXT, recording, "window").trace.window == 5


def test_student_beside_the_published_files_is_found(checkpoint: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(checkpoint, tmp_path / "folder"))
    language_model().save_pretrained(root / "student")
    with_student, without = (CosyVoice2System.load(root, student=student) for student in (True, False))
    assert with_student.models["full"] is not with_student.models["window"]
    assert without.models["full"] is without.models["window"]


def test_half_precision_is_for_the_language_model(checkpoint: Path, recording: Path) -> None:
    tts = CosyVoice2System.load(checkpoint, dtype=torch.bfloat16)
    assert tts.language_model.dtype == torch.bfloat16
    assert next(tts.flow.parameters()).dtype == torch.float32
    assert tts.synthesize(TEXT, recording, "window").seconds > 0.5
