"""A decoding step that is compiled once.

It works on a ``WandCache(static=True)``::

    step = wandlib.compile_step(model)
    cache = wandlib.WandCache(model.config, static=True, capacity=256)  # prompts of up to 256 tokens
    logits = model(input_ids=prompt, past_key_values=cache, use_cache=True).logits  # the prompt is not compiled
    while ...:
        logits = step(input_ids=token, past_key_values=cache, use_cache=True).logits  # token: [batch, 1]

Before each step, `torch.compile` makes sure that nothing has changed of all that it has looked at. In a model that is
some hundred things a layer, which takes longer than the step of a small model, or than a GPU takes. Here it looks at
tensors and at what a step is called with, and takes it that the model stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import nn
from transformers import StaticCache

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.grouped_attention import GROUPED
from wandlib.attention.models import CACHE_ARGUMENTS, base_decoder, inner_model, new_tokens


def compile_step(model: nn.Module, *, cuda_graphs: bool = True, backend: str = "inductor") -> Callable[..., Any]:
    """Compile the decoding step of a causal decoder.

    The first step compiles, which takes seconds to a minute, once for each shape: batch, capacity of the cache; after
    eight of them (``torch._dynamo.config.recompile_limit``) it refuses. The model must stay as it is from then on;
    after ``convert``, ``restore`` and the like, compile anew. Under ``full_attention`` nothing is compiled. Logits are
    not checked: NaN ends in tokens, not in an error. An attention implementation of "sdpa" becomes "grouped_sdpa"
    (:mod:`wandlib.attention.grouped_attention`).

    Parameters
    ----------
    model
        On the device on which it will run; converted, or else for a ``StaticCache`` of transformers without sliding
        layers.
    cuda_graphs
        On a GPU, replay a step as one CUDA graph. What a step returns is then good until the next one.
    backend
        Backend of `torch.compile`. "eager" compiles nothing and needs no C++ compiler: to find errors.

    Returns
    -------
    To be called by keyword, as the model is, with one token of each sequence and a cache that holds a prompt.

    Raises
    ------
    ValueError
        If ``model`` is not a transformers causal decoder; from a step, if it is given anything but one generated token
        of each sequence, or a cache that is not static.
    """
    decoder, inner = base_decoder(model), inner_model(model)
    if decoder.config._attn_implementation == "sdpa":
        inner.set_attn_implementation(GROUPED)
    options: dict[str, Any] = {"guard_filter_fn": keep_guard}
    if backend == "inductor":
        device = next(decoder.parameters()).device.type
        # The C++ wrapper launches a CPU's kernels without Python.
        options |= {"triton.cudagraphs": cuda_graphs} if device == "cuda" else {"cpp_wrapper": device == "cpu"}
        options["size_asserts"] = False

    def step(**kwargs: Any) -> Any:
        return model(**kwargs)

    # A function, not the model: so the call of the model and its hooks are compiled as well.
    compiled: Callable[..., Any] = torch.compile(
        own_code(step), fullgraph=True, dynamic=False, backend=backend, options=options
    )
    hook = getattr(decoder, "wand", None)

    @wraps(model.forward)
    def checked(**kwargs: Any) -> Any:
        if hook is not None and hook.suspended:
            return model(**kwargs)
        check_step(kwargs)
        return compiled(**kwargs)

    return checked


def own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function a code object that no other function has, and return it.

    `torch.compile` keeps graphs by code object. Without the guards that :func:`keep_guard` drops, nothing would tell
    the graph of one model from another's, nor, if a graph were in parts, that of one layer from the next one's.
    """
    function.__code__ = function.__code__.replace()
    return function


def check_step(inputs: dict[str, Any]) -> None:
    """Raise ValueError unless a pass brings one generated token of each sequence, to a static cache."""
    cache, new = next((inputs[name] for name in CACHE_ARGUMENTS if name in inputs), None), new_tokens(inputs)
    if isinstance(cache, WandCache):
        static, step = cache.layout.static, cache.is_step(inputs)
    else:
        static, step = isinstance(cache, StaticCache) and not any(cache.is_sliding), new.shape[1] == 1
    if not static:
        raise ValueError(
            f"a compiled step needs a cache of fixed shapes, got {type(cache).__name__}: pass "
            "WandCache(model.config, static=True), or to an unconverted model a StaticCache without sliding layers"
        )
    if not step:
        raise ValueError(
            "a compiled step takes one generated token of each sequence and a cache that holds their prompts: give "
            "prompts, chunks of them and conditioning to the model itself"
        )


def keep_guard(guards: Any) -> list[bool]:
    """Keep the guards of tensors and of what a step is called with."""
    tensors = torch.compiler.keep_tensor_guards_unsafe(guards)
    return [tensor or guards_input(guard.name) for tensor, guard in zip(tensors, guards, strict=True)]


def guards_input(name: str) -> bool:
    """Whether a guard is of an argument of ``step``; of a cache's layers, the tensors say it all."""
    return name.startswith("kwargs") and ".layers[" not in name
