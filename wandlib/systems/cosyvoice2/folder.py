"""A published folder: is it all there, and what is it if it is something else.

Tensors are read with ``weights_only=True``, settings by :mod:`wandlib.systems.cosyvoice2.settings`: nothing in a
folder is run, its two ONNX files apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from transformers import Qwen2Config

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2.language_model import CosyVoice2LM
from wandlib.systems.cosyvoice2.llm_weights import read_llm
from wandlib.systems.cosyvoice2.settings import NAME, Settings, read_yaml
from wandlib.systems.torch_file import Weight, stored_tensors

REPOSITORY = "FunAudioLLM/CosyVoice2-0.5B"
BASE = "CosyVoice-BlankEN"
LANGUAGE_MODEL = (NAME, "llm.pt", f"{BASE}/config.json")
TOKENIZER = (f"{BASE}/vocab.json", f"{BASE}/merges.txt", f"{BASE}/tokenizer_config.json")
ACOUSTICS = ("flow.pt", "hift.pt")
REFERENCES = ("campplus.onnx", "speech_tokenizer_v2.onnx")
NEEDED = (*LANGUAGE_MODEL, *TOKENIZER, *ACOUSTICS, *REFERENCES)

OTHERS = {
    "cosyvoice3.yaml": "CosyVoice 3; of that version only the language model can be read, by "
    "wandlib.systems.cosyvoice2.folder.load_language_model",
    "cosyvoice.yaml": "CosyVoice 1, whose language model is another; this is for CosyVoice 2",
    "BiCodec": "Spark-TTS: load_system('sparktts', folder)",
    "gpt.pth": "IndexTTS: load_system('indextts', folder)",
    "codec/speakers.safetensors": "the embedded voice: load_system('mini', folder)",
}
"""What tells a folder of another system."""


def check_folder(folder: str | Path, needed: tuple[str, ...] = NEEDED) -> Path:
    """Return the folder, with everything in it.

    Raises
    ------
    FileNotFoundError
        Naming the first file that is missing or lies elsewhere, and the cure.
    InputError
        If the folder is another system's, or a file is a stand-in for itself.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {str(root)!r}: hf download {REPOSITORY} --local-dir {root.name or 'CosyVoice2'}"
        )
    if not (root / NAME).is_file():
        for sign, what in OTHERS.items():
            if (root / sign).exists():
                raise InputError(f"{str(root)!r} holds {what}")
    for name in needed:
        file = root / name
        if not file.is_file():
            elsewhere = next((found for found in sorted(root.rglob(file.name)) if found.is_file()), None)
            if elsewhere is not None and (elsewhere.parent == root or BASE not in name):
                raise FileNotFoundError(
                    f"{name} lies at {str(elsewhere.relative_to(root))!r} in {str(root)!r}: move it"
                )
            raise FileNotFoundError(
                f"no {name} in {str(root)!r}: hf download {REPOSITORY} {name} --local-dir {str(root)!r}"
            )
        if file.stat().st_size < 1024 and file.read_bytes().startswith(b"version https://git-lfs"):
            raise InputError(f"{name} is a Git LFS pointer, not the file itself: run git lfs pull in {str(root)!r}")
    return root


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a .pt file, on the CPU, without what training adds (epoch, step).

    Raises
    ------
    InputError
        If it holds anything but tensors, or is damaged.
    """
    with explained(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, not a state dict")
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def unread_tensors(path: Path) -> dict[str, Weight]:
    """Return the same with the numbers still in the file; InputError likewise."""
    with explained(path):
        return stored_tensors(path)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of reading a .pt file into InputErrors with the cure."""
    try:
        yield
    except UnpicklingError as error:
        raise InputError(
            f"{path.name} holds more than tensors, and code in a checkpoint is not run here: download it again"
        ) from error
    except (RuntimeError, EOFError, OSError, TypeError) as error:
        raise InputError(f"{path.name} cannot be read ({error}): download it again") from error


def load_acoustics(module: nn.Module, path: Path, prefix: str = "") -> nn.Module:
    """Fill a module that was built on the meta device; its weights are those that were read, not copies.

    Raises
    ------
    InputError
        If names or shapes differ; the message tells the first.
    """
    weights = {name.removeprefix(prefix): tensor for name, tensor in read_tensors(path).items()}
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    for name in (*wanted, *weights):
        if name not in weights:
            raise InputError(f"{path.name} has nothing for {name}: it is not of the model that {NAME} describes")
        if name not in wanted:
            raise InputError(f"{path.name} has {name}, which the model that {NAME} describes has not")
        if weights[name].shape != wanted[name]:
            raise InputError(
                f"{name} in {path.name} has the shape {list(weights[name].shape)}, {NAME} makes it {list(wanted[name])}"
            )
    module.load_state_dict(weights, assign=True)
    return module.float().eval()


def load_language_model(folder: str | Path, dtype: torch.dtype | None = None) -> CosyVoice2LM:
    """Return the language model of a folder of CosyVoice 2 or 3.

    Parameters
    ----------
    folder
        The published folder: ``llm.pt`` and ``CosyVoice-BlankEN/config.json`` are read.
    dtype
        Type of the weights; None: as published, float32.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    InputError
        If one does not fit.
    """
    root = Path(folder)
    if not (root / "cosyvoice3.yaml").is_file():
        check_folder(root, LANGUAGE_MODEL)
    for name in LANGUAGE_MODEL[1:]:
        if not (root / name).is_file():
            raise FileNotFoundError(f"no {name} in {str(root)!r}: download the folder again")
    base = Qwen2Config.from_pretrained(root / BASE, local_files_only=True)
    with explained(root / "llm.pt"):
        return read_llm(unread_tensors(root / "llm.pt"), base, dtype)


def load_settings(root: Path) -> Settings:
    """Return the settings of a folder."""
    return Settings(read_yaml(root / NAME))
