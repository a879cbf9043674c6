"""The files of the embedded voice: codec and vocoder, built-in speakers, teacher and student."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from wandlib.systems.mini.codec import Codec
from wandlib.systems.mini.vocoder import Vocoder
from wandlib.systems.registry import SHIPPED
from wandlib.systems.settings import InputError

ASSETS = SHIPPED["mini"]
NEEDED = ("codec/config.json", "codec/model.safetensors", "codec/speakers.safetensors", "teacher/config.json")


@dataclass(frozen=True)
class Voice:
    """A speaker: the codes of 3 s of speech, and the speaker vector [1, dims]."""

    codes: list[int]
    vector: Tensor

    def to(self, device: torch.device) -> Voice:
        """Return the voice with its vector on ``device``."""
        return Voice(self.codes, self.vector.to(device))


def check_folder(folder: str | Path | None) -> Path:
    """Return the folder of the weights; None: the shipped ones.

    Raises
    ------
    FileNotFoundError
        Naming the first file that is missing.
    """
    root = Path(folder) if folder is not None else ASSETS
    cure = "the embedded voice is incomplete; install the package again"
    if folder is not None:
        cure = "give a folder that holds a voice, as the recipe writes it, or leave it out for the shipped one"
    for needed in NEEDED:
        if not (root / needed).is_file():
            raise FileNotFoundError(f"no {needed} in {root}: {cure}")
    return root


def load_acoustics(root: Path) -> tuple[Codec, Vocoder, dict[str, Voice]]:
    """Return codec, vocoder and built-in speakers under ``root``, in float32."""
    config = json.loads((root / "codec" / "config.json").read_text(encoding="utf-8"))
    codec, vocoder = Codec(**config["codec"]), Vocoder(**config["vocoder"])
    weights = load_file(root / "codec" / "model.safetensors")
    for prefix, module in (("codec.", codec), ("vocoder.", vocoder)):
        module.load_state_dict({n.removeprefix(prefix): w.float() for n, w in weights.items() if n.startswith(prefix)})
    stored = load_file(root / "codec" / "speakers.safetensors")
    voices = {
        name: Voice(stored[f"{name}.codes"].tolist(), stored[f"{name}.vector"].float()) for name in config["speakers"]
    }
    return codec, vocoder, voices


def save_voices(path: Path, voices: dict[str, Voice]) -> None:
    """Write built-in speakers for :func:`load_acoustics`."""
    tensors: dict[str, Tensor] = {}
    for name, voice in voices.items():
        tensors[f"{name}.codes"] = torch.tensor(voice.codes, dtype=torch.int32)
        tensors[f"{name}.vector"] = voice.vector.contiguous()
    save_file(tensors, path)


def student_settings(folder: Path) -> dict[str, Any] | None:
    """Return what the student in ``folder`` was trained for, as ``config.wand``; None where there is no student.

    Raises
    ------
    InputError
        If the model there is none.
    """
    if not (folder / "config.json").is_file():
        return None
    settings: dict[str, Any] | None = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("wand")
    if settings is None:
        raise InputError(f"the model in {str(folder)!r} is no student: its config.json has no window (wand)")
    return settings


def load_language_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Qwen2ForCausalLM:
    """Return the model in ``folder``, in float32 by default: on a CPU the fastest at batch 1."""
    model = empty(Qwen2Config.from_pretrained(folder, local_files_only=True))
    stored = load_file(folder / "model.safetensors")
    weights = {name: value.to(device, dtype or torch.float32) for name, value in stored.items()}
    model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, assign=True)
    model.tie_weights()
    model.model.rotary_emb.to(device)
    return model.eval()


def empty(config: Any) -> Qwen2ForCausalLM:
    """Return the model without memory for its weights, which are to be assigned."""
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    model.model.rotary_emb = Qwen2RotaryEmbedding(config)
    return model


def share(model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """Return a second module over the same tensors."""
    twin = empty(Qwen2Config.from_dict(model.config.to_dict()))
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.tie_weights()
    twin.model.rotary_emb.to(model.device)
    return twin.eval()
