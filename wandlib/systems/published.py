"""Published checkpoint folders: what they must hold, and how it is read without running code from it.

YAML is read by a safe loader and torch pickles with ``weights_only=True``: neither can call anything.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from wandlib.systems.base import InputError

MARKERS = {
    "CosyVoice 3": "cosyvoice3.yaml",
    "CosyVoice 2": "cosyvoice2.yaml",
    "CosyVoice": "cosyvoice.yaml",
    "IndexTTS 2": "s2mel.pth",
    "IndexTTS": "bigvgan_generator.pth",
    "Spark-TTS": "BiCodec",
    "the embedded voice": "codec/speakers.safetensors",
    "NeuTTS or Llasa": "codec/preprocessor_config.json",
}
"""A file or folder that only one system's checkpoint holds; the first that is found decides."""
COMMON = ("config.json", "config.yaml", "preprocessor_config.json", "tokenizer_config.json")
"""Names that several folders of a checkpoint have: one found elsewhere is not the one that is missing."""


@dataclass(frozen=True)
class Layout:
    """What the folder of a system must hold.

    Attributes
    ----------
    system
        Its name, as in :data:`MARKERS`.
    repository
        Where the folder is published.
    files
        Paths in the folder.
    """

    system: str
    repository: str
    files: tuple[str, ...]

    def check(self, folder: str | Path) -> Path:
        """Return ``folder`` as a path if it holds every file.

        Raises
        ------
        FileNotFoundError
            If the folder or a file is missing; the message names the first one, where it was found instead if it lies
            in another place, and what brings it.
        InputError
            If the folder is another system's.
        """
        root = Path(folder)
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {str(root)!r}: {self.download}")
        found = next((system for system, marker in MARKERS.items() if (root / marker).exists()), None)
        if found is not None and found != self.system:
            raise InputError(f"{str(root)!r} holds {found}, not {self.system}: load it with the loader of that system")
        for name in self.files:
            if (root / name).is_file():
                continue
            found_at = [] if Path(name).name in COMMON else sorted(root.rglob(Path(name).name))
            elsewhere = next(iter(found_at), None)
            cure = f"move {str(elsewhere.relative_to(root))!r} there, or " if elsewhere is not None else ""
            raise FileNotFoundError(f"no {name} in {str(root)!r}: {cure}{self.download}")
        return root

    @property
    def download(self) -> str:
        """The command that brings a complete folder."""
        return f"get the whole folder with `hf download {self.repository} --local-dir FOLDER`"


def read_yaml(path: Path) -> dict[str, Any]:
    """Return settings in a YAML file.

    Raises
    ------
    InputError
        If the file is no YAML mapping, or holds a tag that would build an object.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path.name} is not plain YAML ({error}): download the file again") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path.name} holds {type(settings).__name__}, not settings: download the file again")
    return settings


def read_pickle(path: Path, wrapped_in: str) -> dict[str, Tensor]:
    """Tensors in a torch pickle, or in its entry ``wrapped_in`` where it has one; mapped, not copied, into memory.

    Raises
    ------
    InputError
        If the file is damaged or holds anything but tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path.name} holds something other than tensors, which is not loaded: it could run code. Download the "
            "file from its publisher"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read as tensors ({error}): download the file again") from error
    state = state.get(wrapped_in, state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path.name} holds something other than tensors: download the file again")
    return dict(state)


def check_keys(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise InputError unless ``state`` has exactly the tensors of ``expected``, in name and shape."""
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    if missing or unknown:
        raise InputError(
            f"{path.name} does not fit its settings: {len(missing)} tensors are missing (first: {missing[:1]}) and "
            f"{len(unknown)} unknown (first: {unknown[:1]}); take weights and config from the same release"
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{name} in {path.name} has shape {list(tensor.shape)}, the settings ask for "
                f"{list(expected[name].shape)}: take weights and config from the same release"
            )
