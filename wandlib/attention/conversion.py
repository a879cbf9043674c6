"""Apply a window to a transformers causal decoder, in place, and take it off again.

Source: WAND, arXiv 2604.08558, section 2; :mod:`wandlib.attention.hook` says how unmodified code is made to obey. A
decode loop of one's own reads as with any cache::

    cache = WandCache(model.config)                              # the window that the model was converted with
    logits = model(input_ids=prompt, past_key_values=cache, use_cache=True).logits
    while ...:
        logits = model(input_ids=token, past_key_values=cache, use_cache=True).logits     # token: [batch, 1]

and under full attention with a ``DynamicCache``. Enter ``with full_attention(model)`` around each call of the model and
not around a ``yield``, so that a generator at rest does not change what others see.
"""

from __future__ import annotations

import gc
import importlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar
from weakref import WeakSet

import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from wandlib.attention.adapters import is_adapter, load_adapter, source_of
from wandlib.attention.checks import check_blocks, check_number
from wandlib.attention.direct_calls import HookedForward
from wandlib.attention.generation import stand_ins
from wandlib.attention.hook import WindowHook
from wandlib.attention.legacy_rope import legacy_rope
from wandlib.attention.models import base_decoder, inner_model, read_decoder
from wandlib.attention.numbers import whole_number
from wandlib.attention.window import check_window

Model = TypeVar("Model", bound=nn.Module)

OWN_MODELS = {
    "cosyvoice2_lm": "wandlib.systems.cosyvoice2.language_model:CosyVoice2LM",
    "indextts": "wandlib.systems.indextts.language_model:IndexLM",
}
"""``module:class`` of models that are not transformers' own, by ``model_type``, imported when :func:`load` needs it."""


HOOKS: WeakSet[WindowHook] = WeakSet()
"""Of the models that are converted now."""
HOOKS_LOCK = threading.RLock()
"""Held while they are looked through: a collector's run may come in between, and another thread's model."""


def windows_beside(hook: WindowHook, config: Any, settings: dict[str, Any]) -> list[int]:
    """Return the windows of other models that have the same config object and other settings."""
    alike = [other for other in HOOKS if other is not hook and other.config is config]
    return [other.window for other in alike if other.settings != settings]


def keep_settings(hook: WindowHook, config: Any, settings: dict[str, Any]) -> None:
    """Put the settings of a hook down in its model's config, by which files are saved and caches made.

    Raises
    ------
    ValueError
        If it keeps others for another model.
    """
    with HOOKS_LOCK:
        if windows_beside(hook, config, settings):
            gc.collect()  # a model is a cycle, with its hook: one that nobody holds any more may still be there
        if windows := windows_beside(hook, config, settings):
            raise ValueError(
                f"another converted model, with a window of {windows[0]}, has the very same config object, which "
                "keeps one window: build each model with a config of its own, copy.deepcopy(config)"
            )
        hook.config, config.wand = config, settings
        HOOKS.add(hook)


def hook_of(model: nn.Module) -> WindowHook:
    """Return the hook of a converted model; ValueError if it was not converted."""
    hook = getattr(base_decoder(model), "wand", None)
    if not isinstance(hook, WindowHook):
        raise ValueError(f"this {type(model).__name__} has no window: call wandlib.convert(model) first")
    return hook


def convert(
    model: Model,
    window: SupportsIndex | float = 32,
    *,
    conditioning_until: SupportsIndex | float | None = None,
    blocks: SupportsIndex | float | None = None,
    pinned: SupportsIndex | float | None = None,
    check_finite: bool = True,
) -> Model:
    """Apply a window to a causal decoder, in place, and return it.

    From then on its ``generate`` and its forward passes with a cache decode with a :class:`~wandlib.WandCache`: by
    default the whole prompt stays visible, and of what is generated the last ``window`` tokens. A pass without a cache
    (training, scoring) must say what is conditioning: ``model(input_ids=..., conditioning=<bool [batch, time]>)``.
    What cannot obey the window is refused.

    Parameters
    ----------
    model
        A transformers causal decoder, bare or with a head, or a PEFT model around one.
    window
        Generated keys that a query sees, its own included. The paper: 32 at 25 tokens/s, 64 at 50 tokens/s.
    conditioning_until
        Token id that ends conditioning which the model generates itself (Spark-TTS: ``<|start_semantic_token|>``).
    blocks, pinned
        How many text blocks stay visible, and how many tokens at the start always do, for speech without end: see
        :class:`~wandlib.WandCache`. None: conditioning never expires.
    check_finite
        Stop generation with a FloatingPointError, naming step and layer, when logits are NaN or infinite.

    Returns
    -------
    The same object.

    Raises
    ------
    ValueError
        If a number is out of range, the model is not a causal decoder of plain or sliding attention layers, has a
        window already, or shares its config with another that has another window. The model is then untouched.
    """
    keys = check_window(window)
    check_blocks(blocks, pinned)
    until = None if conditioning_until is None else check_number("conditioning_until, a token id,", conditioning_until)
    existing = getattr(base_decoder(model), "wand", None)
    if existing is not None:
        raise ValueError(
            f"this model already has a window of {existing.window}: change it with set_window(model, window=...), "
            "or call restore(model) first"
        )
    decoder, facts = read_decoder(model)
    inner: Any = inner_model(model)
    blocks, pinned = (None if value is None else whole_number(value) for value in (blocks, pinned))
    hook = WindowHook(facts, keys, until, blocks, pinned)
    keep_settings(hook, inner.config, hook.settings)
    hook.handles.append(decoder.register_forward_pre_hook(hook.pre_forward, with_kwargs=True))
    hook.handles.append(decoder.register_forward_hook(hook.post_forward, with_kwargs=True))
    if inner is not decoder:
        hook.handles.append(inner.register_forward_pre_hook(hook.pre_model, with_kwargs=True))
    hook.handles.extend(HookedForward(module, hook.abandon) for module in {inner, decoder})
    if check_finite:  # on the inner model, which PEFT's generate calls
        hook.handles.append(inner.register_forward_hook(hook.check_finite))
    decoder.wand = hook
    for name, value in stand_ins(inner, hook).items():
        setattr(inner, name, value)
    hook.legacy = legacy_rope(inner.config)
    hook.replaced = {name: vars(inner.config)[name] for name in hook.legacy if name in vars(inner.config)}
    vars(inner.config).update(hook.legacy)
    return model


def restore(model: Model) -> Model:
    """Take the window off again and return the model: it is what it was before :func:`convert`, bit for bit.

    Raises
    ------
    ValueError
        If the model was not converted.
    """
    hook = hook_of(model)
    for handle in hook.handles:
        handle.remove()
    for readers in hook.readers.values():
        readers.stop()
    del base_decoder(model).wand
    inner = inner_model(model)
    for name in stand_ins(inner, hook):
        delattr(inner, name)
    with HOOKS_LOCK:
        HOOKS.discard(hook)
        if not any(other.config is inner.config for other in HOOKS):
            for name in ("wand", *hook.legacy):
                vars(inner.config).pop(name, None)
            vars(inner.config).update(hook.replaced)
    return model


def set_window(model: Model, *, window: SupportsIndex | float | None = None, tau: float | None = None) -> Model:
    """Change the window of a converted model, or how hard it is in passes without a cache. Returns the model.

    Parameters
    ----------
    window
        Generated keys that a query sees; the saved config follows. Caches that exist keep theirs.
    tau
        Strength of the soft mask ``A - tau * M``; ``inf`` is the hard window. Decoding with a cache is always hard.

    Raises
    ------
    ValueError
        If a number is out of range, or the model shares its config with another that has another window.
    """
    hook = hook_of(model)
    if tau is not None and not float(tau) >= 0:
        raise ValueError(f"tau must be 0 or more (inf: the hard window), got {tau}")
    if window is not None:
        keys = check_window(window)
        keep_settings(hook, inner_model(model).config, hook.settings | {"window": keys})
        hook.window = keys
    if tau is not None:
        hook.tau = float(tau)
    return model


@contextmanager
def full_attention(model: Model) -> Iterator[Model]:
    """Run a converted model under full attention, in this thread, until the block ends: its own teacher.

    A ``generate`` in another thread, as beside transformers' ``TextIteratorStreamer``, keeps its window: open the block
    there.
    """
    hook, thread = hook_of(model), threading.get_ident()
    hook.suspended[thread] = hook.suspended.get(thread, 0) + 1
    try:
        yield model
    finally:
        hook.suspended[thread] -= 1
        if not hook.suspended[thread]:
            del hook.suspended[thread]


def load(folder: str | Path, **kwargs: Any) -> Any:
    """Load a converted model that was saved with ``save_pretrained`` or by the trainer, window and all.

    A student with a LoRA adapter comes back as a ``peft.PeftModel``.

    Parameters
    ----------
    folder
        Folder, or repository on the Hugging Face hub.
    kwargs
        For ``from_pretrained`` (``dtype``, ``device_map``, ...). What says where the files are (``revision``,
        ``subfolder``, ``token``, ``cache_dir``, ...) holds for all of them.

    Raises
    ------
    ValueError
        If the folder's config names no window or no architecture of transformers.
    """
    source = source_of(kwargs)
    own = own_model(Path(folder) / source.get("subfolder", ""))  # imported first: then transformers knows its config
    config = AutoConfig.from_pretrained(folder, **source)
    settings = getattr(config, "wand", None)
    if settings is None:
        raise ValueError(f"{folder} does not hold a converted model: load it with from_pretrained, then convert it")
    architecture = own or getattr(transformers, (config.architectures or [""])[0], None)
    if architecture is None:
        raise ValueError(f"{folder}/config.json names no architecture of transformers: {config.architectures}")
    if is_adapter(folder, **source):
        return convert(load_adapter(folder, architecture, **kwargs), **settings)
    model: PreTrainedModel = architecture.from_pretrained(folder, **kwargs)
    return convert(model, **settings)


def own_model(folder: str | Path) -> Any:
    """Return the class in :data:`OWN_MODELS` for the model in a folder; None: it is transformers'."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        return None
    entry = OWN_MODELS.get(json.loads(path.read_text(encoding="utf-8")).get("model_type"))
    if entry is None:
        return None
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)
