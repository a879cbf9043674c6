"""What is read off a transformers model: with :mod:`.support`, the place that knows its versions and names.

:func:`read_decoder` finds the base decoder (the module that owns the layers) and describes it, or says why a window
cannot be applied to it. What the description rests on (the name of the cache argument, the sliding windows of layers)
differs between models and releases; what was tried is listed in docs/families.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from wandlib.attention.support import (
    MaskReaders,
    attention_modules,
    counts_positions,
    layer_configs,
    layers_of,
    refusal,
    sliding_windows,
    takes_masks_by_kind,
)

__all__ = [
    "ASKED_BY_ASSISTED_DECODING",
    "CACHE_ARGUMENTS",
    "CONTINUOUS_BATCHING",
    "WINDOW_ARGUMENTS",
    "Decoder",
    "MaskReaders",
    "attention_implementation",
    "attention_modules",
    "base_decoder",
    "cache_argument",
    "cache_inputs",
    "finished_request",
    "inner_model",
    "layer_configs",
    "new_tokens",
    "other_cache",
    "read_decoder",
    "rename_cache",
    "sliding_windows",
]

CACHE_ARGUMENTS = ("cache", "past_key_values")
"""What decoders call their key-value cache, newest first: transformers 5.24 renamed ``past_key_values``."""
TOKEN_ARGUMENTS = ("input_ids", "inputs_embeds", "audio_input_ids")
"""The arguments that can bring the new tokens, [batch, time, ...]; the last one: Higgs Audio's codes."""
CONTINUOUS_BATCHING = ("init_continuous_batching", "continuous_batching_context_manager")
"""The methods of a model that enter continuous batching, besides ``generate_batch``."""
ASKED_BY_ASSISTED_DECODING = "_is_stateful"
"""The attribute of a model whose truth ``generate`` asks for before assisted decoding, and for nothing else."""
WINDOW_ARGUMENTS = ("conditioning", "block")
"""The arguments that a converted model takes in addition, each [batch, time]."""


@dataclass(frozen=True)
class Decoder:
    """What the hook needs to know of a base decoder.

    Parameters
    ----------
    name
        Its class, for messages.
    parameters
        The names of its forward's arguments, in order.
    cache
        Which of them holds the key-value cache; the output field has the same name.
    sliding_windows
        The window that each layer has of its own, in tokens; None: none.
    mask_kinds
        The sliding window of each kind of layer, where the decoder takes a mask for each kind.
    positions_from_mask
        Whether it counts positions from a 2-D attention mask, which a window replaces.
    """

    name: str
    parameters: tuple[str, ...]
    cache: str
    sliding_windows: tuple[int | None, ...]
    mask_kinds: Mapping[str, int | None]
    positions_from_mask: bool

    def keywords(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, the cache by this decoder's name for it."""
        if args:
            kwargs = dict(zip(self.parameters, args, strict=False)) | kwargs
        return rename_cache(kwargs, self.cache)

    def layer_masks(self, masks: Mapping[int | None, Any]) -> Any:
        """Return masks by sliding window as the decoder takes them; given one for each kind, it looks for none."""
        if self.mask_kinds:
            return {kind: masks.get(sliding_window) for kind, sliding_window in self.mask_kinds.items()}
        return next(iter(masks.values()), None)


def read_decoder(model: nn.Module) -> tuple[Any, Decoder]:
    """Find the base decoder of a model, and describe it.

    Raises
    ------
    ValueError
        If a window cannot be applied to it, with the reason.
    """
    decoder = base_decoder(model)
    name, parameters = type(decoder).__name__, inspect.signature(decoder.forward).parameters
    cache = cache_argument(decoder)
    if "attention_mask" not in parameters:
        raise ValueError(f"the forward of {name} takes no attention_mask, by which a window is applied")
    windows = sliding_windows(decoder.config)
    if reason := refusal(decoder):
        raise ValueError(f"a window cannot be applied to {name}: {reason}")
    kinds = getattr(decoder.config.get_text_config(decoder=True), "layer_types", None)
    # Some configs list kinds of layers for a decoder that takes one mask for all.
    by_kind = dict(zip(kinds or (), windows, strict=False)) if takes_masks_by_kind(decoder) else {}
    return decoder, Decoder(name, tuple(parameters), cache, tuple(windows), by_kind, counts_positions(decoder))


def inner_model(model: Any) -> Any:
    """Return the transformers model itself, out of the wrapper that PEFT puts around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def base_decoder(model: nn.Module) -> Any:
    """Return the module that owns the layers.

    Raises
    ------
    ValueError
        If ``model`` is not a transformers causal decoder.
    """
    inner = inner_model(model)
    name = type(inner).__name__
    if not isinstance(inner, PreTrainedModel):
        raise ValueError(
            f"{name} is not a transformers model: pass the causal decoder inside it (CosyVoice 2: llm.llm.model)"
        )
    if inner.config.is_encoder_decoder:
        raise ValueError(
            f"{name} is an encoder-decoder, and WAND is for decoders whose conditioning is part of the sequence; pass "
            "a decoder-only model (a ...ForCausalLM)"
        )
    if name.startswith("Bark"):
        raise ValueError(
            f"{name} has an attention of its own that takes neither a cache nor a mask from outside; use a model built "
            "on transformers' AttentionInterface"
        )
    if hasattr(inner, "backbone_model"):
        return inner.backbone_model  # CSM: its depth decoder, a few codebooks long, keeps full attention
    found = inner.get_decoder()
    # ModernBERT's `decoder` is its head; Llama 4's prefix is not the name of its decoder.
    for decoder in (found, inner.base_model, getattr(inner.base_model, "decoder", None), getattr(inner, "model", None)):
        if isinstance(decoder, PreTrainedModel) and layers_of(decoder) is not None:
            return decoder
    raise ValueError(
        f"{type(found).__name__} has no layers in one list, its own or inside an encoder of it, so there is "
        "nothing known to apply a window to; if the causal decoder is a part of it, pass that"
    )


def attention_implementation(decoder: Any) -> str:
    """Return the name of the attention implementation."""
    return decoder.config._attn_implementation or ""


# ------------------------------------------------------------------------------------------------------------ the cache


def cache_argument(model: Any) -> str:
    """Return the name of the argument, and of the output field, that holds a model's key-value cache.

    Raises
    ------
    ValueError
        If its forward takes none.
    """
    parameters = inspect.signature(getattr(inner_model(model), "forward", model)).parameters
    for name in CACHE_ARGUMENTS:
        if name in parameters:
            return name
    raise ValueError(
        f"the forward of {type(model).__name__} takes no key-value cache by a name that is known "
        f"({', '.join(CACHE_ARGUMENTS)}): it has no decoding steps to bound, or this release of transformers is newer "
        "than wandlib"
    )


def cache_inputs(model: Any, cache: Any) -> dict[str, Any]:
    """Return ``cache`` by the name that the model has for it: ``model(ids, **cache_inputs(model, cache))``."""
    return {cache_argument(model): cache}


def argument(module: nn.Module, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return what a call passes as ``name``, by keyword or by position; None: nothing."""
    if not args or name in kwargs:
        return kwargs.get(name)
    return dict(zip(inspect.signature(module.forward).parameters, args, strict=False)).get(name)


def rename_cache(kwargs: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the arguments of a call with the cache by that name, whichever release's name it was given by."""
    for other in CACHE_ARGUMENTS:
        if other != name and other in kwargs:
            kwargs = dict(kwargs)
            value = kwargs.pop(other)
            if kwargs.get(name) is None:
                kwargs[name] = value
    return kwargs


def other_cache(kwargs: Mapping[str, Any], name: str) -> str | None:
    """Return the type of a cache that a pass brings by another name than the decoder's, as paged attention does."""
    for argument, value in kwargs.items():
        if argument != name and (isinstance(value, Cache) or type(value).__name__.endswith("Cache")):
            return type(value).__name__
    return None


def finished_request(name: str, prompt: list[int], generated: list[int]) -> Any:
    """Return the result of a finished request, as transformers' ``generate_batch`` has it."""
    from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus

    return GenerationOutput(name, prompt_ids=prompt, generated_tokens=generated, status=RequestStatus.FINISHED)


def new_tokens(kwargs: Mapping[str, Any]) -> Tensor:
    """Return the argument that brings the new tokens, [batch, time, ...]."""
    for name in TOKEN_ARGUMENTS:
        new: Tensor | None = kwargs.get(name)
        if new is not None:
            return new
    raise ValueError(f"the decoder was given no new tokens: pass one of {', '.join(TOKEN_ARGUMENTS)}")
