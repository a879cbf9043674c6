"""The app with the shipped voice: it speaks, and what cannot be used ends in a sentence on the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from served_app import Served, rows

from wandlib.systems import load_system


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    app = Served(load_system("mini"))
    yield app
    app.page.close()


def test_it_speaks_twice(served: Served) -> None:
    full, windowed, *_, numbers, status = served.compare("Good morning, world.", "henry")
    assert "Done" in status
    for path in (full, windowed):
        samples, rate = soundfile.read(path)
        assert rate == 16_000
        assert 0.5 < len(samples) / rate < 5
        assert np.abs(samples).max() > 0.05
    cache = [float(row["cache at the end (kB)"]) for row in rows(numbers)]
    assert cache[1] < cache[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the text is empty"),
        ("a" * 10_000, "10,000 characters"),
        ("?!...", "nothing to pronounce"),
        ("\N{GRINNING FACE} " * 490, "phones, the limit is"),
    ],
)
def test_text_of_no_use(served: Served, text: str, words: str) -> None:
    with pytest.raises(AppError, match=words):
        served.compare(text, "henry", window=8)


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
        ("short", "at least 1 s"),
        ("silent", "silent"),
        ("nan", "NaN"),
        ("long", "lasts 600 s, the limit is 60"),
        ("text", "not audio"),
    ],
)
def test_recording_of_no_use(served: Served, tmp_path: Path, kind: str, words: str) -> None:
    path = recording(tmp_path / f"{kind}.wav", kind)
    with pytest.raises(AppError, match=words):
        served.compare("Good morning.", "henry", handle_file(path))


def test_emoji_are_read(served: Served) -> None:
    full, *_ = served.compare("\N{GRINNING FACE}", "henry")
    samples, rate = soundfile.read(full)
    assert len(samples) / rate > 0.4
