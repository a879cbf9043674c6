"""The folder IndexTTS-1.5, as published: its files, its settings, and gpt.pth there and back.

Licenses: the code that this one was compared with is tag v1.5.0 (Apache-2.0). **The weights are under bilibili's model
license: non-commercial; commercial use needs registration and written permission; a distilled or fine-tuned model is a
derivative under the same terms.** Later releases of the code are under that license too, and were not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wandlib.systems.base import InputError
from wandlib.systems.indextts.language_model import IndexConfig, IndexLM
from wandlib.systems.indextts.voice_encoder import LATENTS, VoiceEncoder
from wandlib.systems.published import Layout, check_keys, read_pickle
from wandlib.systems.students import load_student

LAYOUT = Layout(
    system="IndexTTS",
    repository="IndexTeam/IndexTTS-1.5",
    files=("config.yaml", "gpt.pth", "bigvgan_generator.pth", "bpe.model"),
)
VERSION = 1.5
VOICE = ("conditioning_encoder.", "perceiver_encoder.")
"""What of gpt.pth belongs to the voice encoder."""


def check_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of ``config.yaml`` if they are those of version 1.5.

    Raises
    ------
    InputError
        For another version, or for a part that is missing or of another kind.
    """
    version = settings.get("version", 1.0)
    if float(version) != VERSION:
        raise InputError(
            f"config.yaml says version {version}; only IndexTTS 1.5 is read: get it with `hf download "
            f"{LAYOUT.repository} --local-dir FOLDER`"
        )
    for part in ("gpt", "bigvgan"):
        if not isinstance(settings.get(part), dict):
            raise InputError(f"config.yaml has no part {part!r}: download the file again")
    kind = settings["gpt"].get("condition_type")
    if kind != "conformer_perceiver":
        raise InputError(f"gpt.condition_type is {kind!r} in config.yaml; IndexTTS 1.5 has 'conformer_perceiver'")
    return settings


def language_config(settings: Mapping[str, Any]) -> IndexConfig:
    """Sizes of the language model, from the ``gpt`` part of ``config.yaml``."""
    code_positions = settings["max_mel_tokens"] + 2 + settings.get("max_conditioning_inputs", 1)
    text_positions = settings["max_text_tokens"] + 2
    return IndexConfig(
        text_size=settings["number_text_tokens"] + 1,
        code_positions=code_positions,
        text_positions=text_positions,
        start_text=settings.get("start_text_token", 0),
        end_text=settings.get("stop_text_token", 1),
        start_code=settings["start_mel_token"],
        end_code=settings["stop_mel_token"],
        vocab_size=settings["number_mel_codes"],
        n_positions=code_positions + text_positions + LATENTS,
        n_embd=settings["model_dim"],
        n_layer=settings["layers"],
        n_head=settings["heads"],
        activation_function=settings.get("activation_function") or "gelu_new",
        attn_implementation="sdpa",
    )


def read_language_model(
    path: Path, settings: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> tuple[IndexLM, VoiceEncoder]:
    """Language model in ``dtype`` and voice encoder in fp32 of ``gpt.pth``, strictly.

    Raises
    ------
    InputError
        If the file is damaged or does not fit ``settings``, the ``gpt`` part of ``config.yaml``.
    """
    state = read_pickle(path, "model")
    state.pop("gpt.wte.weight", None)  # the codes' embedding a second time, in files saved after inference
    with torch.device("meta"):
        model, voice = (
            IndexLM(language_config(settings)),
            VoiceEncoder(settings["model_dim"], settings["condition_module"]),
        )
    check_keys(path, state, {**model.state_dict(), **voice.state_dict()})
    of_the_voice = {name: tensor for name, tensor in state.items() if name.startswith(VOICE)}
    voice.load_state_dict(of_the_voice, strict=True, assign=True)
    model.load_state_dict({n: t for n, t in state.items() if n not in of_the_voice}, strict=True, assign=True)
    return model.eval().to(dtype), voice.eval().float()


def read_trained(
    place: str | Path, teacher: IndexLM, settings: Mapping[str, Any], dtype: torch.dtype
) -> tuple[IndexLM, int | None]:
    """Return a trained language model, of a folder that ``wandlib train`` wrote or of a ``gpt.pth``, and its window.

    Raises
    ------
    FileNotFoundError
        If there is none.
    InputError
        If it is another model, or of other sizes.
    """
    path = Path(place)
    if not path.is_file() and not (path / "gpt.pth").is_file():
        return load_student(path, teacher, LAYOUT.system, dtype)
    return read_language_model(path / "gpt.pth" if path.is_dir() else path, settings, dtype)[0], None


def original_dtype(path: Path) -> torch.dtype:
    """Return the type of the weights in a published ``gpt.pth``."""
    return next(iter(read_pickle(path, "model").values())).dtype


def write_language_model(path: Path, model: IndexLM, original: Path) -> None:
    """Write ``gpt.pth`` with the weights of ``model``, a student for example, in place of the original's.

    What ``model`` shares with the original stays as it is, bit for bit, and so does the voice encoder. Upstream's code
    reads the file and speaks with full attention.

    Parameters
    ----------
    path
        File to write.
    model
        Of the same sizes as the original.
    original
        The published ``gpt.pth``.
    """
    state = read_pickle(original, "model")
    trained: Mapping[str, Tensor] = model.state_dict()
    check_keys(original, {n: t for n, t in state.items() if not n.startswith((*VOICE, "gpt.wte."))}, trained)
    trained = {"gpt.wte.weight": trained["mel_embedding.weight"], **trained}
    back = {name: trained[name].to(old) if name in trained else old.clone() for name, old in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": back}, path)
