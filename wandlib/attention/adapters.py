"""Students with a LoRA adapter on disk: a folder from which :func:`wandlib.load` rebuilds one, window and all.

    adapter_model.safetensors   the adapter, as peft saves it
    adapter_config.json         as peft saves it; ``base_model_name_or_path`` names the base model
    config.json                 the base model's config, with the window: {"wand": {"window": 32, ...}}
    base/                       the base model's weights, where no other place is known to hold them

peft's own folder has neither the window nor the weights of a base model that was never saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from wandlib.attention.models import inner_model

BASE = "base"
"""Subfolder for the weights of the base model."""
WRAPPERS = ("base_layer", "original_module", "token_adapter")
"""What peft calls a layer of the base model within the one that it puts around it."""
SOURCE = ("revision", "subfolder", "token", "cache_dir", "force_download", "local_files_only")
"""The arguments of ``from_pretrained`` that say where files are."""
ADAPTERS_OWN = ("revision", "subfolder")
"""Those of them that say it of the repository with the adapter, and not of another one with the base model."""


def source_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a ``from_pretrained`` that say where a repository's files are."""
    return {name: kwargs[name] for name in SOURCE if kwargs.get(name) is not None}


def is_adapter(folder: str | Path, **source: Any) -> bool:
    """Return whether a folder, or a repository on the hub, holds an adapter and not a whole model."""
    if Path(folder).is_dir():  # transformers 5.17 looks into no subfolder of a folder
        return (Path(folder) / source.get("subfolder", "") / ADAPTER_CONFIG_NAME).is_file()
    return find_adapter_config_file(str(folder), **source) is not None


def complete_adapter(student: Any, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Add to a folder that ``student.save_pretrained`` wrote what :func:`load_adapter` needs besides.

    Parameters
    ----------
    student
        A converted peft model with one adapter, "default".
    folder
        Folder that holds the adapter.
    state_dict
        The student's weights, where distributed training has gathered them; default: its own.
    """
    folder, inner = Path(folder), inner_model(student)
    inner.config.architectures = [type(inner).__name__]  # as save_pretrained of a whole model does
    inner.config.save_pretrained(folder)
    weights = base_weights(student, student.state_dict() if state_dict is None else state_dict)
    source: str | None = inner.name_or_path
    if not source or not holds(source, untied(inner, weights)):
        inner.save_pretrained(folder / BASE, state_dict=weights)
        source = BASE
    elif Path(source).is_dir():
        source = str(Path(source).resolve())
    path = folder / ADAPTER_CONFIG_NAME
    adapter = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": source}
    path.write_text(json.dumps(adapter, indent=2, sort_keys=True), encoding="utf-8")


def base_weights(student: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the base model alone, by the names they have without an adapter."""
    expected = weight_names(inner_model(student))
    found = {plain: state_dict[name] for name, plain in base_names(student, state_dict, expected).items()}
    if missing := expected - set(found) - set(inner_model(student)._tied_weights_keys or ()):
        raise ValueError(
            f"cannot save the base model of {type(student).__name__}: {len(missing)} weights are missing, among them "
            f"{min(missing)}; merge the adapter (student.merge_and_unload()) and save the result"
        )
    return found


def base_names(student: nn.Module, names: Iterable[str], expected: set[str]) -> dict[str, str]:
    """Return which of these names are those of the base model's own weights, and what they are without an adapter."""
    inner = inner_model(student)
    prefix = next(name for name, module in student.named_modules() if module is inner) + "."
    parts = {name: name.removeprefix(prefix).split(".") for name in names}
    plain = {name: ".".join(part for part in path if part not in WRAPPERS) for name, path in parts.items()}
    return {name: own for name, own in plain.items() if own in expected}


def trained_base_weights(student: nn.Module) -> list[str]:
    """Return the names of the base model's own weights that are trained, though there is an adapter."""
    trained = [name for name, each in student.named_parameters() if each.requires_grad]
    return sorted(base_names(student, trained, weight_names(inner_model(student))))


def weight_names(model: Any) -> set[str]:
    """Return the names of a model's weights, as it was built, without an adapter."""
    with torch.device("meta"):
        return set(type(model)(model.config).state_dict())


def untied(inner: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without those that are others' equals by the model's ties, and come with them when loaded."""
    ties = {name: weights.get(other) for name, other in inner.all_tied_weights_keys.items()}
    return {
        name: value
        for name, value in weights.items()
        if (other := ties.get(name)) is None or not torch.equal(value, other)
    }


def holds(source: str, weights: Mapping[str, Tensor]) -> bool:
    """Return whether a folder, or the local copy of a hub repository, holds these very weights, all of them.

    A model remembers where it was loaded from even after it was trained, merged or resized, so its word is not enough.
    """
    try:
        folder = source if Path(source).is_dir() else snapshot_download(source, local_files_only=True)
    except (HFValidationError, LocalEntryNotFoundError):
        return False
    found: set[str] = set()
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in set(stored.keys()) & set(weights):
                ours = weights[name].cpu()
                if not torch.equal(stored.get_tensor(name).to(ours.dtype), ours):
                    return False
                found.add(name)
    return found == set(weights)


def load_adapter(
    folder: str | Path, architecture: type[PreTrainedModel], *, is_trainable: bool = False, **kwargs: Any
) -> Any:
    """Load a student with a LoRA adapter, without its window: ``convert`` puts it back.

    Parameters
    ----------
    folder
        Folder that the trainer saved, or a repository on the hub with its contents.
    architecture
        Class of the base model.
    is_trainable
        Whether to train the adapter on; else it is frozen.
    kwargs
        Arguments for the base model's ``from_pretrained`` (``dtype``, ``device_map``, ...).

    Returns
    -------
    The ``peft.PeftModel``, in evaluation mode.

    Raises
    ------
    ImportError
        If peft is not installed.
    """
    try:
        from peft import PeftConfig, PeftModel
    except ModuleNotFoundError as error:
        raise ImportError(f"{folder} holds an adapter, which needs peft: pip install 'wandlib[train]'") from error
    own = source_of(kwargs)
    rest = {name: value for name, value in kwargs.items() if name not in ADAPTERS_OWN}
    source = str(PeftConfig.from_pretrained(str(folder), **own).base_model_name_or_path)
    inside = Path(own.get("subfolder", "")) / BASE
    if source == BASE and Path(folder).is_dir():
        source = str(Path(folder) / inside)  # with subfolder=, transformers 5.17 looks for the adapter first
    elif source == BASE:
        source, rest = str(folder), rest | own | {"subfolder": inside.as_posix()}
    base = architecture.from_pretrained(source, **rest)
    student = PeftModel.from_pretrained(base, str(folder), is_trainable=is_trainable, **own).train(is_trainable)
    student.peft_config["default"].base_model_name_or_path = base.name_or_path  # else peft looks for "base" on the hub
    return student
