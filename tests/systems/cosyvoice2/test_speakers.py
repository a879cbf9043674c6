"""Built-in speakers of a folder: spk2info.pt."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2 import CosyVoice2System
from wandlib.systems.cosyvoice2.speakers import read_speakers


def entry(tts: CosyVoice2System, recording: Path) -> dict[str, Any]:
    """What the published add_zero_shot_spk stores."""
    voice = tts.voice(recording, "What it says.")
    codes = torch.tensor([voice.reference.codes], dtype=torch.int32)
    return {
        "prompt_text": torch.tensor([voice.prompt_text], dtype=torch.int32),
        "llm_prompt_speech_token": codes,
        "flow_prompt_speech_token": codes,
        "prompt_speech_feat": voice.reference.mel,
        "llm_embedding": voice.reference.speaker,
        "flow_embedding": voice.reference.speaker,
    }


@pytest.fixture
def folder(checkpoint: Path, tts: CosyVoice2System, recording: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(checkpoint, tmp_path / "folder"))
    known = {"anna": entry(tts, recording), "bert": {"embedding": torch.ones(1, 192)}}
    torch.save(known, root / "spk2info.pt")
    return root


def test_they_speak_like_the_recording_they_were_made_of(folder: Path, tts: CosyVoice2System, recording: Path) -> None:
    system = CosyVoice2System.load(folder)
    assert system.speakers == ["anna", "bert"]
    assert tts.speakers == []
    wanted = tts.synthesize("Hello there.", recording, "window", transcript="What it says.")
    for reference in ("anna", None):
        assert np.array_equal(system.synthesize("Hello there.", reference, "window").waveform, wanted.waveform)
    instructed = system.synthesize("Hello there.", "anna", instruct="Be glad.")
    assert np.array_equal(instructed.codes, tts.synthesize("Hello there.", recording, instruct="Be glad.").codes)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_vector_alone_is_a_voice(streamed: bool, folder: Path) -> None:
    system = CosyVoice2System.load(folder)
    text = "Hello there, how are you today?"
    if streamed:
        sound = np.concatenate(list(system.stream(text, "bert", "window")))
    else:
        sound = system.synthesize(text, "bert", "window").waveform
    assert sound.std() > 1e-3


def test_what_cannot_be_a_speaker(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="comes with what it says"):
        CosyVoice2System.load(folder).synthesize("Hi.", "anna", transcript="Other words.")
    assert read_speakers(tmp_path / "none") == {}
    for content, message in (
        ([1], "holds a list, not speakers"),
        ({"anna": {"prompt_text": torch.ones(1, 2)}}, "speaker 'anna' in spk2info.pt cannot be read"),
        ({"anna": Path()}, "holds more than tensors"),
    ):
        torch.save(content, folder / "spk2info.pt")
        with pytest.raises(InputError, match=message):
            read_speakers(folder)
