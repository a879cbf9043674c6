"""Put the window under a transformers causal decoder, in place, and take it out again.

Source: WAND, arXiv 2604.08558, section 2; :mod:`wandlib.attention.hook` says how it gets under unmodified code. A decode loop of
one's own reads as with any cache::

    cache = WandCache(model.config, window=32)                   # its window rules for this decode
    logits = model(input_ids=prompt, past_key_values=cache, use_cache=True).logits
    while ...:
        logits = model(input_ids=token, past_key_values=cache, use_cache=True).logits     # token: [batch, 1]

and under full attention with a ``DynamicCache``. Enter ``with full_attention(model)`` around each call of the model and
not around a ``yield``, so that a generator at rest does not change what others see.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from wandlib.attention.hook import AssistedDecoding, Window
from wandlib.attention.window import check_window

Model = TypeVar("Model", bound=nn.Module)


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
    if not isinstance(inner, PreTrainedModel):
        raise ValueError(
            f"{type(model).__name__} is not a transformers model: pass the causal decoder inside it (CosyVoice 2: "
            "llm.llm.model)"
        )
    if inner.config.is_encoder_decoder:
        raise ValueError(
            f"{type(inner).__name__} is an encoder-decoder, and WAND is for decoders whose conditioning is part of the "
            "sequence; pass a decoder-only model (a ...ForCausalLM)"
        )
    if type(inner).__name__.startswith("Bark"):
        raise ValueError(
            f"{type(inner).__name__} has an attention of its own that takes neither a cache nor a mask from outside; "
            "use a model built on transformers' AttentionInterface"
        )
    if hasattr(inner, "backbone_model"):
        return inner.backbone_model  # CSM: its depth decoder, a few codebooks long, stays whole
    decoder = inner.get_decoder()
    if not any(isinstance(child, nn.ModuleList) and len(child) for child in decoder.children()):
        raise ValueError(f"found no decoder layers in {type(decoder).__name__}: pass the causal decoder itself")
    return decoder


def hook_of(model: nn.Module) -> Window:
    """Return the window of a converted model; ValueError if it was not converted."""
    hook = getattr(base_decoder(model), "wand", None)
    if not isinstance(hook, Window):
        raise ValueError(f"this {type(model).__name__} has no window: call wandlib.convert(model) first")
    return hook


def convert(
    model: Model, window: int = 32, *, conditioning_until: int | None = None, check_finite: bool = True
) -> Model:
    """Put the window under a transformers causal decoder, in place.

    Afterwards ``generate`` and every forward pass with a cache keep all conditioning and the last ``window`` generated
    tokens; a forward pass without a cache takes ``conditioning`` (a bool tensor [batch, time]) and sees by the same
    rule.

    Parameters
    ----------
    model
        A transformers causal decoder, bare or with a head, or a PEFT model around one.
    window
        Generated keys that a query sees, its own included. The paper: 32 at 25 tokens/s, 64 at 50 tokens/s.
    conditioning_until
        Token id that ends conditioning which the model generates itself (Spark-TTS: ``<|start_semantic_token|>``).
    check_finite
        Stop generation with a FloatingPointError, naming step and layer, when logits are NaN or infinite.

    Returns
    -------
    The same object.

    Raises
    ------
    ValueError
        If ``window`` < 1, the model is no causal decoder of plain or sliding attention layers, or has a window already.
        The model is then untouched.
    """
    check_window(window)
    decoder = base_decoder(model)
    if hasattr(decoder, "wand"):
        raise ValueError(
            f"this model already has a window of {decoder.wand.window}: change it with set_window(model, window=...), "
            "or call restore(model) first"
        )
    hook = Window(decoder, window, conditioning_until)
    hook.handles.append(decoder.register_forward_pre_hook(hook.before, with_kwargs=True))
    hook.handles.append(decoder.register_forward_hook(hook.unfold, with_kwargs=True))
    if model is not decoder:
        hook.handles.append(model.register_forward_pre_hook(hook.rename, with_kwargs=True))
    if check_finite:
        hook.handles.append(model.register_forward_hook(hook.after))
    decoder.wand = hook
    inner = inner_model(model)
    inner._is_stateful = AssistedDecoding(hook)
    inner.config.wand = {"window": window, "conditioning_until": conditioning_until}
    return model


def restore(model: Model) -> Model:
    """Take the window out again: the model is what it was before :func:`convert`, bit for bit. Returns it.

    Raises
    ------
    ValueError
        If the model was not converted.
    """
    hook = hook_of(model)
    for handle in hook.handles:
        handle.remove()
    del base_decoder(model).wand
    inner = inner_model(model)
    del inner._is_stateful
    vars(inner.config).pop("wand", None)  # gone already where two models share one config
    return model


def set_window(model: Model, *, window: int | None = None, tau: float | None = None) -> Model:
    """Change the window of a converted model, or how hard it is in passes without a cache. Returns the model.

    Parameters
    ----------
    window
        Generated keys that a query sees; the saved config follows. Caches that exist keep theirs.
    tau
        Strength of the soft mask ``A - tau * M``; ``inf`` is the hard window. Decoding with a cache is always hard.
    """
    hook = hook_of(model)
    if window is not None:
        check_window(window)
        hook.window = window
        inner_model(model).config.wand = {"window": window, "conditioning_until": hook.conditioning_until}
    if tau is not None:
        if not tau >= 0:
            raise ValueError(f"tau must be 0 or more (inf: the hard window), got {tau}")
        hook.tau = float(tau)
    return model


@contextmanager
def full_attention(model: Model) -> Iterator[Model]:
    """Run a converted model under full attention, in this thread, until the block ends: its own teacher."""
    hook, thread = hook_of(model), threading.get_ident()
    hook.suspended[thread] = hook.suspended.get(thread, 0) + 1
    try:
        yield model
    finally:
        hook.suspended[thread] -= 1
        if not hook.suspended[thread]:
            del hook.suspended[thread]


def load(folder: str | Path, **kwargs: Any) -> PreTrainedModel:
    """Load a converted model that was saved with ``save_pretrained``, window and all.

    Parameters
    ----------
    folder
        Folder, or repository on the Hugging Face hub.
    kwargs
        For ``from_pretrained`` (``dtype``, ``device_map``, ...).

    Raises
    ------
    ValueError
        If the folder's config names no window or no architecture of transformers.
    """
    config = AutoConfig.from_pretrained(folder)
    settings = getattr(config, "wand", None)
    if settings is None:
        raise ValueError(f"{folder} does not hold a converted model: load it with from_pretrained, then convert it")
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    if architecture is None:
        raise ValueError(f"{folder}/config.json names no architecture of transformers: {config.architectures}")
    model: PreTrainedModel = architecture.from_pretrained(folder, **kwargs)
    return convert(model, **settings)
