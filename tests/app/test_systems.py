"""The whole path of published systems through the page, on their tiny checkpoints: a recording and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
import tiny_codec_lm
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from served_app import RESULT, Served

from wandlib.systems import load_system
from wandlib.systems.cosyvoice2.tiny import write_tiny

WRITE: dict[str, Callable[[Path], Any]] = {
    "cosyvoice2": write_tiny,
    "neutts": lambda folder: tiny_codec_lm.write("neutts", folder),
}


@pytest.fixture(params=WRITE)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    WRITE[request.param](tmp_path / "checkpoint")
    served = Served(load_system(request.param, tmp_path / "checkpoint"))
    yield served
    served.page.close()


def test_a_recording_and_what_it_says(served: Served, tmp_path: Path) -> None:
    recordings.write(tmp_path / "voice.wav")

    def compare(transcript: str) -> Any:
        voice = handle_file(tmp_path / "voice.wav")
        return tuple(
            served.client.predict("Yes.", None, voice, 8, 0, "default", False, transcript, api_name="/compare")
        )

    answer = compare("YOU.")
    for name in ("full", "window"):
        assert answer[RESULT]["sides"][name]["ended"] in {"end", "limit"}
        sound, rate = served.sound(answer, name)
        assert rate == served.system.sample_rate
        assert len(sound) > 0
        assert np.isfinite(sound).all()
    if served.system.name == "neutts":
        with pytest.raises(AppError, match="needs its transcript"):
            compare("")
    else:
        assert compare("")[RESULT]["sides"]["full"]["ended"] in {"end", "limit"}
