"""A decoding step that is compiled once.

It works on a ``WandCache(static=True)``::

    step = wandlib.compile_step(model)
    cache = wandlib.WandCache(model.config, static=True)
    logits = model(input_ids=prompt, past_key_values=cache, use_cache=True).logits  # the prompt is not compiled
    while ...:
        logits = step(input_ids=token, past_key_values=cache, use_cache=True).logits  # token: [batch, 1]

Before each step, `torch.compile` makes sure that nothing has changed of all that it has looked at. In a model that is
some hundred things a layer, which takes longer than the step of a small model, or than a GPU takes. Here it looks at
the tensors alone, those of the cache among them, whose shapes say what kind of cache it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from wandlib.attention import GROUPED
from wandlib.convert import base_decoder, inner_model


def compile_step(model: nn.Module, *, cuda_graphs: bool = True, backend: str = "inductor") -> Callable[..., Any]:
    """Compile the decoding step of a causal decoder.

    The first step compiles, which takes seconds to a minute, once for each shape: batch, capacity of the cache. The
    model must stay as it is from then on; after ``convert``, ``restore`` and the like, compile anew.
    An attention implementation of "sdpa" becomes "grouped_sdpa" (:mod:`wandlib.attention`).

    Parameters
    ----------
    model
        On the device on which it will run; converted, or else for a ``StaticCache`` of transformers.
    cuda_graphs
        On a GPU, replay a step as one CUDA graph. What a step returns is then good until the next one.
    backend
        Of `torch.compile`. "eager" compiles nothing and needs no C++ compiler: to find errors.

    Returns
    -------
    To be called as the model is, with one token for each sequence and a cache that holds a prompt.

    Raises
    ------
    ValueError
        If ``model`` is not a transformers causal decoder.
    """
    decoder, inner = base_decoder(model), inner_model(model)
    if decoder.config._attn_implementation == "sdpa":
        inner.set_attn_implementation(GROUPED)
    options: dict[str, Any] = {"guard_filter_fn": tensors_and_sleep}
    if backend == "inductor":
        device = next(decoder.parameters()).device.type
        # The C++ wrapper launches a CPU's kernels without Python.
        options |= {"triton.cudagraphs": cuda_graphs} if device == "cuda" else {"cpp_wrapper": device == "cpu"}
    compiled: Callable[..., Any] = torch.compile(model, dynamic=False, backend=backend, options=options)
    return compiled


def tensors_and_sleep(guards: Any) -> list[bool]:
    """Keep the guards of tensors, and the one that sees :func:`wandlib.full_attention`."""
    kept = torch.compiler.keep_tensor_guards_unsafe(guards)
    return [keep or ".suspended" in guard.name for keep, guard in zip(kept, guards, strict=True)]
