"""The app with the shipped voice: it speaks, and what cannot be used ends in a sentence on the page."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
import torch
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from peft import LoraConfig, get_peft_model
from served_app import CURVES, NUMBERS, RESULT, STATUS, Served
from transformers import Qwen2Config, Qwen2ForCausalLM

from app.curves import bytes_in_use
from app.stage import has_student, three_sides
from app.turns import take_turns
from wandlib.profiling.estimate import cache_bytes
from wandlib.systems import load_system

MEGABYTE = 1e6


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    system = load_system("mini")
    app = Served(system, untrained=lambda: load_system("mini", student=False))
    yield app
    app.page.close()


def speaker(served: Served) -> str:
    """Any that the voice has: another one may ship."""
    return str(served.system.speakers[0])


def test_it_speaks_three_times(served: Served) -> None:
    window = served.system.window
    answer = served.compare("Good morning, world.", speaker(served), window=window, untrained=True)
    assert "Done" in answer[STATUS]
    sides = answer[RESULT]["sides"]
    assert list(sides) == ["full", "window", "untrained"]
    for side in ("full", "window"):
        samples, rate = served.sound(answer, side)
        assert rate == served.system.sample_rate
        assert 0.5 < len(samples) / rate < 5
        assert np.abs(samples).max() > 0.05
        assert 0 < sides[side]["first_sound_milliseconds"] < 1000 * sides[side]["seconds"]
        assert sides[side]["weight_bytes"] > MEGABYTE
    assert sides["window"]["cache_bytes"] < sides["full"]["cache_bytes"]
    assert answer[CURVES].count("<polyline") == 6
    said = max(sides[side]["speech_seconds"] for side in ("full", "window"))
    assert f"after {said:.0f} s of speech" in answer[NUMBERS], (
        "the two that the numbers compare, however long a third is"
    )


def test_a_long_text_is_compared_in_one_cache(served: Served) -> None:
    """By default the teacher reads in parts: its cache would begin anew where the student's goes on."""
    text = " ".join(["The birch canoe slid on the smooth planks."] * 3)
    assert len(served.system.count_symbols(text)) > 1
    full = served.compare(text, speaker(served), window=served.system.window)[RESULT]["sides"]["full"]
    assert len(full["parts"]) > 1
    token = cache_bytes(served.system.models["full"].config, conditioning=1, generated=0, dtype=torch.float32)
    assert full["cache_bytes"] / token > sum(full["parts"]), (
        "all codes are there at the end, not those of the last part"
    )


@pytest.mark.slow
def test_all_windows_read_a_long_text_in_one_cache(served: Served) -> None:
    text = " ".join(["The birch canoe slid on the smooth planks."] * 3)
    answer = tuple(served.client.predict(text, speaker(served), None, "student", api_name="/windows"))
    sides = answer[RESULT]["sides"].values()
    assert [(len(side["parts"]) > 1, side["one_cache"]) for side in sides] == 5 * [(True, True)]


def test_student_is_told_from_the_teacher(served: Served) -> None:
    assert has_student(served.system)
    assert not has_student(load_system("mini", student=False))


def test_student_that_was_trained_in_a_part_is_told_from_the_teacher() -> None:
    """As by LoRA, which leaves the embedding, and most else, as it was."""
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    teacher, student = (Qwen2ForCausalLM(Qwen2Config(vocab_size=50, num_key_value_heads=2, **shape)) for _ in "ab")
    student.load_state_dict(teacher.state_dict())
    system: Any = SimpleNamespace(models={"full": teacher, "window": student})
    assert not has_student(system)
    with torch.no_grad():
        student.model.layers[0].self_attn.q_proj.weight[0, 0] += 1
    assert has_student(system)
    student.load_state_dict(teacher.state_dict())
    system.models["window"] = get_peft_model(student, LoraConfig(target_modules=["q_proj"]))
    assert has_student(system), "adapters of its own"
    system.models["window"] = copy.deepcopy(teacher).half()
    assert has_student(system)


@pytest.mark.parametrize(("text", "size"), [("Good morning.", 16), ("Hi.", 256)])
def test_windows_curve_is_never_above_full_attention(served: Served, text: str, size: int) -> None:
    """The ring is allocated at once, as large as the text can need; what is drawn is what is in use."""
    made = three_sides(served.system, None, size)
    for side in made:
        side.prepare([text], None, 0, None)
    take_turns(made, threading.Event())
    full, window = (bytes_in_use(side) for side in made)
    both = min(len(full), len(window))
    assert (window[:both] <= full[:both]).all()
    assert window[0] == full[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the text is empty"),
        ("a" * 10_000, "10,000 characters"),
        ("?!...", "nothing to pronounce"),
        ("\N{GRINNING FACE} " * 490, "phones, the limit is"),
        ("你好，世界", "another script"),
        ("مرحبا بالعالم", "another script"),
        ("<speak>Hello</speak>", "SSML and HTML are not read"),
    ],
)
def test_text_of_no_use(served: Served, text: str, words: str) -> None:
    with pytest.raises(AppError, match=words):
        served.compare(text, speaker(served), window=8)


def recording(path: Path, kind: str) -> Path:
    rate = 16_000
    tone = 0.1 * np.sin(np.arange(2 * rate) / 10)
    samples: Any = {
        "short": tone[: rate // 10],
        "silent": np.zeros(2 * rate),
        "nan": np.append(tone, np.nan),
        "long": np.tile(tone, 300),
    }.get(kind)
    if samples is None:
        path.write_text("this is a text", encoding="utf-8")
    else:
        soundfile.write(path, samples, rate, subtype="FLOAT" if kind == "nan" else "PCM_16")
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("short", "at least"),
        ("silent", "silent"),
        ("nan", "NaN"),
        ("long", "lasts 600 s, the limit is 60"),
        ("text", "not audio"),
    ],
)
def test_recording_of_no_use(served: Served, tmp_path: Path, kind: str, words: str) -> None:
    path = recording(tmp_path / f"{kind}.wav", kind)
    with pytest.raises(AppError, match=words):
        served.compare("Good morning.", speaker(served), handle_file(path))


def test_small_file_that_decodes_to_gigabytes_is_refused_by_its_header(served: Served, tmp_path: Path) -> None:
    """8 channels at 655,350 Hz: 59 s of zeros are 338 kB on disk, and were 1.3 GB in memory, which stayed."""
    path = tmp_path / "voice.flac"
    zeros = np.zeros((65_535, 8), np.int16)
    with soundfile.SoundFile(path, "w", 655_350, 8, subtype="PCM_16") as file:
        for _ in range(590):
            file.write(zeros)
    assert path.stat().st_size < MEGABYTE
    process = psutil.Process()
    before = process.memory_info().rss
    for _ in range(3):
        with pytest.raises(AppError, match="655,350 samples a second"):
            served.compare("Good morning.", speaker(served), handle_file(path))
    assert process.memory_info().rss - before < 40 * MEGABYTE


def test_emoji_are_read(served: Served) -> None:
    answer = served.compare("\N{GRINNING FACE}", speaker(served))
    samples, rate = served.sound(answer, "full")
    assert len(samples) / rate > 0.4
