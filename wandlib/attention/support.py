"""Whether a window can be applied to a decoder, and what its layers attend to: read off its config, modules and code.

No list of names: a feature that a window would get wrong is what refuses a decoder. What was tried, class by class, is
listed in docs/families.md.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

ATTENTION = (
    "self_attn",
    "attn",
    "attention",
    "self_attention",
    "mixer",
    "temporal_block",
    "multi_head_attention",
    "norm_attn_norm",
)
"""What layers call their self-attention."""


def layers_of(decoder: nn.Module) -> nn.ModuleList | None:
    """Return the layers of a decoder, its own or those of the encoder inside it (BERT); None: there are none."""
    if (found := _stack(decoder)) is not None:
        return found
    inside = (_stack(child) for child in decoder.children() if not isinstance(child, PreTrainedModel))
    return next((stack for stack in inside if stack is not None), None)


def _stack(module: nn.Module) -> nn.ModuleList | None:
    """Return the first list of modules that have parts; embeddings of several codebooks have none."""
    lists = (child for child in module.children() if isinstance(child, nn.ModuleList) and len(child))
    return next((stack for stack in lists if any(True for _ in stack[0].children())), None)


def attention_modules(decoder: nn.Module) -> list[nn.Module]:
    """Return the self-attention of each layer, in order; an empty list where some layer has none of a known name."""
    found = [
        next((part for part in (getattr(layer, name, None) for name in ATTENTION) if _called(part)), None)
        for layer in layers_of(decoder) or ()
    ]
    return [module for module in found if module is not None] if None not in found else []


def _called(part: Any) -> bool:
    """Whether this is one module that is called; the parts of a list are not called by it."""
    return isinstance(part, nn.Module) and not isinstance(part, nn.ModuleList)


# -------------------------------------------------------------------------------------------- what layers attend to


def sliding_windows(config: PreTrainedConfig) -> list[int | None]:
    """List the sliding window that each layer has of its own, in tokens; None where a layer attends to everything.

    Raises
    ------
    ValueError
        If a layer is not plain attention (linear, chunked, shared keys): there is nothing to put a window on.
    """
    text = config.get_text_config(decoder=True)
    layers = layer_configs(text)
    owns = [getattr(layer, "sliding_window", None) for layer in layers]
    if getattr(text, "use_sliding_window", True) is False:
        owns = [None] * len(layers)
    kinds = getattr(text, "layer_types", None)
    older = getattr(text, "layers_block_type", None) or ()  # of RecurrentGemma on transformers 5.17
    if kinds is None and any("attention" not in kind for kind in older):
        kinds = older
    if kinds is None:
        chunked = getattr(text, "attention_chunk_size", None) is not None
        kinds = [
            "sliding_attention" if own is not None else "chunked_attention" if chunked else "full_attention"
            for own in owns
        ]
    if shared := getattr(text, "num_kv_shared_layers", None):
        kinds = kinds[: len(kinds) - shared] + ["shared_keys"] * shared
    for layer, kind in enumerate(kinds):
        if kind not in ("full_attention", "sliding_attention"):
            raise ValueError(
                f"layer {layer} of {text.model_type} is of type {kind!r}; a window needs 'full_attention' or "
                "'sliding_attention' layers with keys of their own"
            )
    return [own if kind == "sliding_attention" else None for own, kind in zip(owns, kinds, strict=False)]


def layer_configs(config: PreTrainedConfig) -> list[Any]:
    """Return the config of each layer; they differ only where releases since 5.23 let them."""
    config = config.get_text_config(decoder=True)
    if getattr(config, "is_heterogeneous", False):
        return list(config.per_layer_config)
    return [config] * config.num_hidden_layers


def takes_masks_by_kind(decoder: nn.Module) -> bool:
    """Whether the decoder's forward looks a mask up by the kind of layer."""
    config: Any = decoder.config
    if not getattr(config.get_text_config(decoder=True), "layer_types", None):
        return False
    source = _source(type(decoder).forward)
    return source is None or "isinstance(attention_mask, dict)" in source or "causal_mask_mapping" in source


def counts_positions(decoder: nn.Module) -> bool:
    """Whether learned positions are counted from the attention mask (OPT)."""
    source = _source(type(decoder).forward) or ""
    counted = any(
        "attention_mask" in inspect.signature(child.forward).parameters and "embed_positions" in name
        for name, child in decoder.named_children()
    )
    return counted and "position_ids = torch.arange" not in source


def _source(thing: Any) -> str | None:
    """Return the source code of a class or function; None where there is none to read."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return None


# ---------------------------------------------------------------------------------------------------- what is refused


def refusal(decoder: Any) -> str | None:
    """Say why a window would be wrong in this decoder; None: nothing is known against it."""
    config = decoder.config.get_text_config(decoder=True)
    if _has_alibi(decoder):
        return "its ALiBi bias is counted from the slots of the cache, not from positions, and a ring reorders slots"
    kinds = {*(getattr(config, "attention_layers", None) or ()), *(getattr(config, "attn_layers", None) or ())}
    if limited := sorted(kinds & {"local", "lsh"}):
        return (
            f"its {' and '.join(limited)} layers keep a limit of their own that is counted from the slots of the "
            "cache; only global layers can have a window"
        )
    if getattr(config, "add_cross_attention", False) or getattr(config, "cross_attention_layers", None):
        return "it has cross-attention layers, whose keys are not part of the sequence; set add_cross_attention=False"
    if cure := _not_causal(decoder, config):
        return f"it is not causal: set {cure} in its config"
    if getattr(decoder, "attention_type", None) == "block_sparse":
        return "block-sparse attention makes masks of its own: set attention_type='original_full' in its config"
    return _unplaceable(decoder, config)


def _unplaceable(decoder: Any, config: Any) -> str | None:
    """Say why the tokens or layers of a pass are not those that a cache can plan for."""
    parameters = inspect.signature(decoder.forward).parameters
    images = any(hasattr(config, name) for name in ("image_token_id", "image_token_index"))
    if "pixel_values" in parameters and not images:
        return (
            "it puts images into the sequence where no token stands for them, so that a cache cannot count its tokens"
        )
    own = re.search(r"not isinstance\((?:cache|past_key_values), (\w+Cache)\)", _source(type(decoder).forward) or "")
    if own and own[1] not in ("DynamicCache", "EncoderDecoderCache"):
        return f"it takes no cache but one of its own kind ({own[1]})"
    if isinstance(getattr(decoder, "embed_tokens", None), nn.ModuleList):
        return "its batch has a row for each codebook, so that the rows that come in are not the sequences in a cache"
    modules = attention_modules(decoder)
    if not modules:
        return f"its layers do not have one self-attention each by a name that is known ({', '.join(ATTENTION)})"
    called = [*(layers_of(decoder) or ())[:1], modules[0]]
    taken = [name for module in called for name in inspect.signature(module.forward).parameters]
    if offset := next((name for name in taken if name.endswith("_offset")), None):
        return f"its layers run several times in a pass, each time with keys of their own ({offset})"
    if any(getattr(module, "indexer", None) is not None for module in modules):
        return "an indexer of its own, with a cache of its own, chooses the keys that its attention reads"
    relative = (n for module in modules for n, _ in module.named_children() if re.search("rel(ative)?_|distance", n))
    if name := next(relative, None):
        return f"its relative positions ({name}) are counted from the slots of the cache, and a ring reorders slots"
    return None


def _not_causal(decoder: Any, config: Any) -> str | None:
    """Return the setting that would make a decoder causal; None: it is."""
    if getattr(config, "is_causal", True) is False:
        return "is_causal=True"
    if getattr(config, "use_bidirectional_attention", None) is True:
        return "use_bidirectional_attention=False"
    # Many configs have the flag; it matters where the model asks for it.
    if getattr(config, "is_decoder", True) is False and "config.is_decoder" in (_source(type(decoder)) or ""):
        return "is_decoder=True"
    return None


def _has_alibi(decoder: Any) -> bool:
    """Whether attention is biased by distance, linearly."""
    config = decoder.config
    flags = (config, getattr(config, "attn_config", None))
    return any(getattr(flag, "alibi", False) for flag in flags) or hasattr(decoder, "build_alibi_tensor")


# ------------------------------------------------------------------------------------------------- who reads the mask


class MaskReaders:
    """Watches which layers' attention is given one of ``masks``, from now until :meth:`stop`."""

    def __init__(self, decoder: nn.Module, masks: Mapping[Any, Any]) -> None:
        self.masks, self.layers = list(masks.values()), set[int]()
        modules = enumerate(attention_modules(decoder))
        self.handles = [module.register_forward_pre_hook(self._look(n), with_kwargs=True) for n, module in modules]

    def _look(self, layer: int) -> Callable[..., None]:
        """Return the hook on the attention of a layer."""

        # Torch looks twice which hooks take keywords; another thread may remove this one in between.
        def look(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] = MappingProxyType({})) -> None:
            if any(_same_mask(value, mask) for value in (*args, *kwargs.values()) for mask in self.masks):
                self.layers.add(layer)

        return look

    def stop(self) -> set[int]:
        """Stop watching; return the layers that read."""
        for handle in self.handles:
            handle.remove()
        return self.layers


def _same_mask(value: Any, mask: Any) -> bool:
    """Whether an argument is a mask, or a cast or a view of it."""
    if value is mask:
        return value is not None
    if not (isinstance(value, Tensor) and isinstance(mask, Tensor)) or value.ndim != 4:
        return False
    mask = mask.to(value.device)  # a layer on another device is given a copy
    if value.dtype == torch.bool:
        return value.shape == mask.shape and torch.equal(value, mask > torch.finfo(mask.dtype).min / 2)
    same = value.shape[-2:] == mask.shape[-2:] and value.shape[0] == mask.shape[0]
    return same and (
        value.untyped_storage().data_ptr() == mask.untyped_storage().data_ptr() or torch.equal(value == 0, mask == 0)
    )
