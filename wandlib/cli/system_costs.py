"""The tables of ``wandlib profile --system`` and ``--train``: costs at the published sizes, with random weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.table import Table

from wandlib.cli.options import console
from wandlib.systems import InputError
from wandlib.systems.registry import TRAINING, training_of

if TYPE_CHECKING:
    from torch import nn

    from wandlib.profiling.training_memory import TrainingMemory

ALL = "all"
MEMORY = {
    "weights": "weights, float32",
    "teacher": "teacher, float32",
    "optimizer": "optimizer, AdamW's two moments",
    "activations": "activations, kept for the backward pass",
    "logits": "logits of a chunk",
    "gradients": "gradients (they come while activations go)",
    "peak": "at most at once",
}


def names_of(system: str) -> list[str]:
    """Return the names of the systems that are asked for: all, or one."""
    return list(TRAINING) if system == ALL else [training_of(system).base.system]


def costs_table(names: Sequence[str], measure: Callable[[Any], tuple[float, float]] | None = None) -> Table:
    """Return what ten seconds of speech cost each system.

    Parameters
    ----------
    names
        Of the systems.
    measure
        Gives the milliseconds of a step, full and window, of a system's training; None: nothing is measured.
    """
    import torch

    from wandlib.profiling.estimate import attention_flops, cache_bytes

    rows: dict[str, list[str]] = {}
    for name in names:
        training = training_of(name)
        ten = training.ten_seconds
        with torch.device("meta"):
            model: Any = training.random_model()
        held, flops = [], []
        for window in (None, training.window):
            shape: dict[str, Any] = {"conditioning": ten.prompt, "generated": ten.tokens, "window": window}
            held.append(cache_bytes(model.config, **shape, dtype=torch.bfloat16) / 1e6)
            flops.append(attention_flops(model.config, **shape) / 1e9)
        cells = {
            "prompt, tokens": str(ten.prompt),
            "steps": str(ten.tokens),
            "window, keys": str(training.window),
            "cache, MB: full": f"{held[0]:.2f}",
            "  window": f"{held[1]:.2f}",
            "  less": f"{100 * (1 - held[1] / held[0]):.1f} %",
            "attention, GFLOPs: full": f"{flops[0]:.2f}",
            "  window ": f"{flops[1]:.2f}",
            "  full / window": f"{flops[0] / flops[1]:.2f}",
            "weights, MB": f"{2 * sum(parameter.numel() for parameter in model.parameters()) / 1e6:.0f}",
        }
        if measure is not None:
            for attention, milliseconds in zip(("full", "window"), measure(training), strict=True):
                cells[f"step, ms: {attention}"] = f"{milliseconds:.1f}"
        for told, cell in cells.items():
            rows.setdefault(told, []).append(cell)
    table = Table("", *names, box=None, caption_justify="left")
    for told, found in rows.items():
        table.add_row(told, *found)
    table.caption = "ten seconds of one utterance; cache and weights in 16 bits; FLOPs of attention over all steps"
    return table


def step_milliseconds(training: Any, steps: int, warmup: int, device: Any, dtype: Any) -> tuple[float, float]:
    """Return the median milliseconds of a step, full and window, at the end of ten seconds, with random weights."""
    from wandlib.attention.conversion import convert, full_attention
    from wandlib.profiling.measure import profile

    ten = training.ten_seconds
    steps = min(steps, ten.tokens)
    prompt = ten.prompt + ten.tokens - steps  # the last steps of ten seconds
    with console.status(f"measuring {training.base.title}"):
        model = convert(training.random_model().eval().to(device, dtype), window=training.window)
        with full_attention(model):
            full = profile(model, prompt, steps, batch=ten.sequences, warmup=warmup)
        window = profile(model, ten.prompt, steps, batch=ten.sequences, warmup=warmup)
    return full.median_milliseconds, window.median_milliseconds


def training_memory_of(
    build: Callable[[], nn.Module], *, lora: int | None, batch: int, length: int, bf16: bool, chunk: int = 512
) -> TrainingMemory:
    """Return the memory of training what ``build`` makes, with adapters of rank ``lora`` where given.

    Raises
    ------
    InputError
        If it cannot be computed for that class; the message says why.
    """
    from wandlib.cli.training_run import with_adapters
    from wandlib.profiling.training_memory import training_memory

    adapt = None if lora is None else partial(with_adapters, rank=lora)
    name = "this model"

    def named() -> nn.Module:
        nonlocal name
        model = build()
        name = type(model).__name__
        return model

    log = logging.getLogger("torch._subclasses.fake_tensor")  # prints the traceback of an error that is caught here
    before, log.disabled = log.disabled, True
    try:
        return training_memory(named, batch=batch, length=length, adapt=adapt, bf16=bf16, chunk=chunk)
    except (ValueError, RuntimeError) as error:  # of a class whose operations are not all known without numbers
        reason = str(error).partition("\n")[0]
        raise InputError(f"the memory of training {name} cannot be computed: {reason}") from error
    finally:
        log.disabled = before


def memory_table(memory: TrainingMemory, title: str) -> Table:
    """Return the parts of the memory of training, in GB."""
    table = Table("", title, box=None, caption_justify="left")
    for name, told in MEMORY.items():
        table.add_row(told, f"{getattr(memory, name) / 1e9:.2f} GB")
    table.caption = "computed; the CUDA context and what the allocator keeps in reserve come on top"
    return table
