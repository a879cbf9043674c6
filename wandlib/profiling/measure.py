"""Measured costs of decoding: milliseconds, cache bytes and memory of every step.

Times are wall times of complete steps, as a decode loop sees them (with a synchronization on CUDA). Memory is what the
CUDA allocator holds, or the resident set of the process on a CPU, read outside the timed part. Compare with
:mod:`wandlib.profiling.estimate`, which computes costs from a config.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import psutil
import torch
from torch import nn
from transformers import DynamicCache

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.checks import check_number
from wandlib.attention.hook import WindowHook
from wandlib.attention.models import base_decoder, cache_inputs, inner_model

if TYPE_CHECKING:
    from wandlib.plots import Picture


@dataclass(frozen=True)
class Profile:
    """The measurements of one decode."""

    milliseconds: list[float]
    """Wall time of each step."""
    cache_bytes: list[int]
    """Bytes of keys and values after each step."""
    memory_bytes: list[int]
    """Bytes of ``memory`` after each step."""
    memory: str
    """Kind of ``memory_bytes``: "cuda allocator" or "resident set"."""
    prefill_milliseconds: float
    """Wall time of the prefill."""
    conditioning: int
    """Number of conditioning tokens."""
    window: int | None
    """Generated keys that a query saw; None: full attention."""
    batch: int
    """Number of sequences."""
    device: str
    """Name of the device."""

    @property
    def median_milliseconds(self) -> float:
        """Median wall time of the steps."""
        return statistics.median(self.milliseconds)

    @property
    def growth(self) -> float:
        """Median of the last tenth of the steps over that of the second tenth: 1 where every step costs the same."""
        steps, tenth = self.milliseconds, max(1, len(self.milliseconds) // 10)
        return statistics.median(steps[-tenth:]) / statistics.median(steps[tenth : 2 * tenth] or steps)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return all measurements as JSON, and write them to ``path`` if given."""
        text = json.dumps(asdict(self))
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def plot(self) -> Picture:
        """Draw milliseconds, cache and memory (MB) over the steps."""
        from wandlib import plots  # matplotlib only when something is drawn

        return plots.profile(self)


def processor() -> str:
    """Return the name of the processor: "AMD EPYC"."""
    described = Path("/proc/cpuinfo")  # Linux; platform.processor() is empty there
    text = described.read_text(encoding="utf-8") if described.exists() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def machine() -> str:
    """Return the processor with its number of cores: "AMD EPYC, 2 cores"."""
    return f"{processor()}, {os.cpu_count()} cores"


def resident_bytes() -> int:
    """Return the resident set of this process."""
    found: int = psutil.Process().memory_info().rss
    return found


def held_bytes(cache: WandCache | DynamicCache) -> int:
    """Return the bytes of keys and values in a cache."""
    if isinstance(cache, WandCache):
        return cache.nbytes
    layers: list[Any] = cache.layers
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


@torch.inference_mode()
def profile(
    model: nn.Module,
    conditioning: SupportsIndex | float = 187,
    steps: SupportsIndex | float = 1500,
    *,
    batch: SupportsIndex | float = 1,
    warmup: SupportsIndex | float = 20,
) -> Profile:
    """Decode random tokens and measure every step.

    A converted model runs under its window; inside ``with full_attention(model)``, or unconverted, under full
    attention.

    Parameters
    ----------
    model
        A transformers causal decoder that takes ``input_ids``.
    conditioning, steps
        Number of conditioning tokens in the prefill, and of tokens to generate after it.
    batch
        Number of sequences.
    warmup
        Steps of a first decode that is not recorded.

    Raises
    ------
    ValueError
        If a number is not a whole one, or ``conditioning``, ``steps`` or ``batch`` is below 1.
    """
    conditioning, steps = check_number("conditioning, in tokens,", conditioning, 1), check_number("steps", steps, 1)
    batch, warmup = check_number("batch", batch, 1), check_number("warmup", warmup)
    decoder = base_decoder(model)
    hook = getattr(decoder, "wand", None)
    window = hook.window if isinstance(hook, WindowHook) and not hook.disabled else None
    device = next(decoder.parameters()).device
    on_cuda = device.type == "cuda"
    ids = torch.randint(decoder.config.get_text_config().vocab_size, (batch, conditioning + 1), device=device)

    def timed(cache: Any, new: torch.Tensor) -> float:
        if on_cuda:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        model(input_ids=new, use_cache=True, **cache_inputs(decoder, cache))
        if on_cuda:
            torch.cuda.synchronize(device)
        return 1e3 * (time.perf_counter() - start)

    for count in (warmup, steps):
        config = inner_model(model).config
        cache = DynamicCache(config=config) if window is None else WandCache(config, conditioning=conditioning)
        prefill = timed(cache, ids[:, :-1])
        milliseconds, held, memory = [], [], []
        for _ in range(count):
            milliseconds.append(timed(cache, ids[:, -1:]))
            held.append(held_bytes(cache))
            memory.append(torch.cuda.memory_allocated(device) if on_cuda else resident_bytes())
    return Profile(
        milliseconds=milliseconds,
        cache_bytes=held,
        memory_bytes=memory,
        memory="cuda allocator" if on_cuda else "resident set",
        prefill_milliseconds=prefill,
        conditioning=conditioning,
        window=window,
        batch=batch,
        device=torch.cuda.get_device_name(device) if on_cuda else str(device),
    )
