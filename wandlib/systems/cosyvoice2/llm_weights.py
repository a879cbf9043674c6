"""The published ``llm.pt`` and our language model, there and back, bit for bit.

=====================================  ======================================================
llm.pt                                 here
=====================================  ======================================================
speech_embedding.weight                rows [0, head_size) of model.embed_tokens.weight
llm_embedding.weight (version 2)       the two rows after them
llm.model.model.embed_tokens.weight    the rows of text
llm.model.lm_head.weight               not used by either; tied to the rows of text
llm.model.model.*                      model.*
llm_decoder.{weight, bias}             lm_head.{weight, bias}
=====================================  ======================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2.configuration import LAYOUTS, CosyVoice2Config, Layout
from wandlib.systems.cosyvoice2.language_model import CosyVoice2LM, empty
from wandlib.systems.torch_file import Weight, equal, read, read_into

DECODER = "llm.model.model."
SPEECH, TASKS, TEXT = "speech_embedding.weight", "llm_embedding.weight", DECODER + "embed_tokens.weight"
TIED = "llm.model.lm_head.weight"
TABLE = "model.embed_tokens.weight"


def layout_of(weights: Mapping[str, Weight]) -> tuple[int, Layout]:
    """Return version and layout of a state dict, by its names.

    Raises
    ------
    InputError
        If it is not that of a CosyVoice 2 or 3.
    """
    missing = [name for name in (SPEECH, TEXT, "llm_decoder.weight") if name not in weights]
    if missing:
        what = "CosyVoice 1 (text_encoder in it)" if any(n.startswith("text_encoder") for n in weights) else "neither"
        raise InputError(
            f"this llm.pt has no {missing[0]}: it is not that of CosyVoice 2 or 3 but {what}; download llm.pt of "
            "FunAudioLLM/CosyVoice2-0.5B again"
        )
    version = 2 if TASKS in weights else 3
    return version, LAYOUTS[version]


def config_of(weights: Mapping[str, Weight], base: Qwen2Config) -> CosyVoice2Config:
    """Return the language model's configuration: the sizes of ``base`` (CosyVoice-BlankEN), the ids of ``weights``."""
    version, layout = layout_of(weights)
    sizes = {
        name: getattr(base, name)
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "hidden_act",
            "max_position_embeddings",
            "rms_norm_eps",
            "rope_parameters",
            "attention_dropout",
            "initializer_range",
        )
    }
    return CosyVoice2Config(
        version=version,
        codes=weights["llm_decoder.weight"].shape[0] - layout.special,
        text_vocab_size=weights[TEXT].shape[0],
        **sizes,
    )


def read_llm(weights: dict[str, Weight], base: Qwen2Config, dtype: torch.dtype | None = None) -> CosyVoice2LM:
    """Return the language model that ``weights`` hold. They are taken out of the dict as they are used.

    Parameters
    ----------
    weights
        The state dict of ``llm.pt``, in memory or still in the file; empty afterwards.
    base
        The config of ``CosyVoice-BlankEN``.
    dtype
        Type of the weights; None: as they are.

    Raises
    ------
    InputError
        If a name is missing or unknown, or a shape is another.
    """
    config = config_of(weights, base)
    tied, text = weights.pop(TIED, None), weights[TEXT]
    if tied is not None and not equal(tied, text):
        raise InputError(
            "llm.model.lm_head.weight and llm.model.model.embed_tokens.weight differ in this llm.pt, though they are "
            "one tensor in CosyVoice: save it again from the model that upstream loads"
        )
    del tied, text
    wanted = dtype or weights[SPEECH].dtype
    weights[TABLE] = table(weights, config, wanted)
    model = empty(config, wanted)
    expected = {name: parameter.shape for name, parameter in model.state_dict().items()}
    for name in list(weights):
        ours = renamed(name)
        if ours not in expected:
            raise InputError(f"{name} in this llm.pt is unknown: is it a checkpoint of CosyVoice {config.version}?")
        tensor = weights.pop(name)
        if tensor.shape != expected[ours]:
            raise InputError(
                f"{name} has the shape {list(tensor.shape)}, but CosyVoice-BlankEN/config.json makes it "
                f"{list(expected[ours])}: the two files are not of one model"
            )
        place, _, last = ours.rpartition(".")
        module: nn.Module = model.get_submodule(place)
        setattr(module, last, nn.Parameter(read(tensor, wanted), requires_grad=True))
        del expected[ours]
    if expected:
        raise InputError(f"this llm.pt has nothing for {next(iter(expected))}: download it again")
    return model


def table(weights: dict[str, Weight], config: CosyVoice2Config, dtype: torch.dtype) -> Tensor:
    """Return the three embeddings as one, and take them out of ``weights``."""
    rows = torch.empty(config.vocab_size, config.hidden_size, dtype=dtype)
    start = 0
    for name, count in ((SPEECH, config.head_size), (TASKS, config.layout.task_rows), (TEXT, config.text_vocab_size)):
        if not count:
            continue
        part = weights.pop(name)
        if list(part.shape) != [count, config.hidden_size]:
            raise InputError(f"{name} has the shape {list(part.shape)}, wanted {[count, config.hidden_size]}")
        read_into(part, rows[start : start + count])
        start += count
    return rows


def renamed(name: str) -> str:
    """Return our name of a tensor of ``llm.pt``."""
    if name.startswith("llm_decoder."):
        return name.replace("llm_decoder.", "lm_head.", 1)
    return name.replace(DECODER, "model.", 1)


def write_llm(model: CosyVoice2LM) -> dict[str, Tensor]:
    """Return the state dict of ``llm.pt`` in upstream's names; the inverse of :func:`read_llm`, bit for bit."""
    config = model.config
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    rows = state.pop(TABLE)
    weights = {SPEECH: rows[: config.head_size].clone()}
    if config.layout.task_rows:
        weights[TASKS] = rows[config.head_size : config.first_text].clone()
    weights[TEXT] = weights[TIED] = rows[config.first_text :].clone()
    for name, tensor in state.items():
        head = name.startswith("lm_head.")
        weights[name.replace("lm_head.", "llm_decoder.", 1) if head else DECODER + name.removeprefix("model.")] = tensor
    return weights


def export_llm(model: Any, path: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write a (student's) language model as the ``llm.pt`` that upstream's own CLI reads; it runs full attention there.

    Returns the path.

    Raises
    ------
    InputError
        If the file has another ending or cannot be written.
    """
    target = Path(path)
    if target.suffix != ".pt":
        raise InputError(f"cannot write {target.name!r}: name a .pt file, in CosyVoice's folder llm.pt")
    weights = write_llm(model)
    cast = {name: tensor.to(dtype) for name, tensor in weights.items() if name != TIED}
    cast[TIED] = cast[TEXT]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(cast, target)
    except OSError as error:
        raise InputError(f"cannot write {str(target)!r}: {error}") from error
    return target
