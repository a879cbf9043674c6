"""Built-in speakers: ``spk2info.pt``, which a folder of CosyVoice may hold, as voices.

=================================================  ================================================================
entry of the published code's ``add_zero_shot_spk``  text tokens and codes of a recording, its spectrogram, its vector
``{"embedding": vector}``                          a vector alone: a voice without words or codes before the text
=================================================  ================================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wandlib.systems.cosyvoice2.folder import explained
from wandlib.systems.cosyvoice2.reference import Reference
from wandlib.systems.cosyvoice2.voice import Voice
from wandlib.systems.settings import InputError

NAME = "spk2info.pt"
BANDS = 80


def read_speakers(root: Path) -> dict[str, Voice]:
    """Return the built-in speakers of a folder, by name; none where it has no ``spk2info.pt``.

    Raises
    ------
    InputError
        If the file is damaged, holds more than tensors, or an entry is no speaker.
    """
    path = root / NAME
    if not path.is_file():
        return {}
    with explained(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, not speakers")
    return {str(name): voice_of(str(name), entry) for name, entry in content.items()}


def voice_of(name: str, entry: Any) -> Voice:
    """Return the voice in an entry; InputError if there is none."""
    try:
        if "embedding" in entry:
            return Voice(Reference([], torch.zeros(1, 0, BANDS), vector(entry["embedding"])), [], heard=False)
        codes = tokens(entry["flow_prompt_speech_token"])
        mel = entry["prompt_speech_feat"].float()[:, : 2 * len(codes)]
        if mel.shape != (1, 2 * len(codes), BANDS) or tokens(entry["llm_prompt_speech_token"]) != codes:
            raise ValueError(f"{len(codes)} codes and a spectrogram of shape {list(mel.shape)}")
        return Voice(Reference(codes, mel, vector(entry["flow_embedding"])), tokens(entry["prompt_text"]), heard=True)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"speaker {name!r} in {NAME} cannot be read ({error!r}): make the file again") from error


def vector(stored: Tensor) -> Tensor:
    """Return a speaker vector, [1, features]."""
    return stored.float().reshape(1, -1)


def tokens(stored: Tensor) -> list[int]:
    """Return ids, which are stored as [1, count]."""
    return [int(token) for token in stored.reshape(-1)]
