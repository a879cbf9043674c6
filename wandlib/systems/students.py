"""A student's folder, as ``wandlib train`` writes it: its weights as they are stored, and its window."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedModel

from wandlib.systems.published import check_keys
from wandlib.systems.settings import InputError

SIZES = ("vocab_size", "hidden_size")
"""What a student has in common with its teacher."""
BESIDE_THE_WEIGHTS = (".json", ".txt", ".jinja", ".model")
"""Endings of config and tokenizer files, which a student takes from the original."""
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""By the names that safetensors has for them."""


def stored_dtypes(folder: Path) -> set[torch.dtype]:
    """Return the types of the weights in ``model*.safetensors`` of a folder.

    Raises
    ------
    InputError
        If there are none, or they cannot be read.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise InputError(f"no model.safetensors in {str(folder)!r}: give the folder that wandlib train wrote")
    found = set[torch.dtype]()
    try:
        for file in files:
            with safe_open(file, "pt") as stored:
                found |= {DTYPES[stored.get_slice(name).get_dtype()] for name in stored.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, KeyError) as error:
        raise InputError(f"the weights in {str(folder)!r} cannot be read ({error}): train it again") from error
    return found


def read_student(folder: Path, kind: type[PreTrainedModel], what: str, original: torch.dtype | None = None) -> Any:
    """Return a student's language model with the weights as they are stored, without a window.

    Parameters
    ----------
    folder
        That ``wandlib train`` wrote.
    kind
        Class of the language model.
    what
        The system's name in messages.
    original
        Type that its weights are to be written back in; None: nothing is written back.

    Raises
    ------
    FileNotFoundError
        If the folder has no config.json.
    InputError
        If it holds another model, or its weights were rounded: what training left alone would change.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no config.json in {str(folder)!r}: give the folder that wandlib train wrote")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if type(config) is not kind.config_class:  # CosyVoice's is a Qwen2Config, too
            raise ValueError(f"its config.json is that of a {config.model_type!r}")
        stored = stored_dtypes(folder)
        rounded = stored - {torch.float32, original}
        if original is not None and rounded:
            raise InputError(
                f"the student in {str(folder)!r} is stored in {', '.join(map(named, rounded))}, and the original in "
                f"{named(original)}: weights that training left alone would not come back bit for bit. Save it in "
                "float32, as wandlib train does"
            )
        model = kind.from_pretrained(folder, dtype=torch.float32 if torch.float32 in stored else "auto")
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(folder)!r} holds no language model of {what}: {error}") from error
    vars(model.config).pop("wand", None)
    return model.eval()


def load_student(
    folder: str | Path, teacher: PreTrainedModel, what: str, dtype: torch.dtype | None = None
) -> tuple[Any, int | None]:
    """Return the language model that takes ``teacher``'s place under the window, and the window it was trained for.

    Parameters
    ----------
    folder
        That ``wandlib train`` wrote.
    teacher
        The published language model.
    what
        The system's name in messages.
    dtype
        Type of the weights; None: as they are stored.

    Raises
    ------
    FileNotFoundError
        If the folder has no config.json.
    InputError
        If it holds another model, or one of another size.
    """
    student = read_student(Path(folder), type(teacher), what)
    for name in SIZES:
        found, wanted = (getattr(model.config, name) for model in (student, teacher))
        if found != wanted:
            raise InputError(
                f"the student in {str(folder)!r} has {name} {found}, the language model of {what} {wanted}: it was "
                "made of another checkpoint or system"
            )
    return student.to(dtype or student.dtype), trained_window(folder)


def trained_window(folder: str | Path) -> int | None:
    """Return the window that a student was trained for, by its config.json; None: it says nothing."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return (config.get("wand") or {}).get("window")


def named(dtype: torch.dtype) -> str:
    """Return the name of a type: "float32"."""
    return str(dtype).removeprefix("torch.")


def write_back(model: PreTrainedModel, original: Path, folder: Path) -> None:
    """Write a student as a folder that the published code reads: config, tokenizer and license are the original's.

    What else the original's folder holds is not copied: other forms of its weights (.gguf, .bin) are not the student's.

    A config that transformers 5 writes has another form, whose rotary base older releases misread.

    Parameters
    ----------
    model
        The trained language model.
    original
        Folder of the published one.
    folder
        Folder to write.

    Raises
    ------
    InputError
        If the two are not of the same sizes.
    """
    trained, files = model.state_dict(), sorted(original.glob("model*.safetensors"))
    before = {file: load_file(file) for file in files}
    stored = {name: tensor for tensors in before.values() for name, tensor in tensors.items()}
    wanted = {name: tensor for name, tensor in trained.items() if name in stored or name != "lm_head.weight"}
    check_keys(files[0], stored, wanted)
    folder.mkdir(parents=True)
    for file in sorted(original.iterdir()):
        if file.suffix in BESIDE_THE_WEIGHTS or file.stem in {"LICENSE", "NOTICE"}:
            shutil.copyfile(file, folder / file.name)
    for file, tensors in before.items():
        back = {name: trained[name].to(old, copy=True).contiguous() for name, old in tensors.items()}
        save_file(back, folder / file.name, metadata={"format": "pt"})
