"""What decoding costs, measured: milliseconds, cache bytes and memory of every step.

The wall clock is that of whole steps as a decode loop sees them (on CUDA the device is waited for). Memory is what the
CUDA allocator holds, or the resident set of the process on a CPU, read outside the timed part. Compare with
:mod:`wandlib.profiling.estimate`, which counts on paper.
"""

from __future__ import annotations

import json
import mmap
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import DynamicCache

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import base_decoder
from wandlib.attention.hook import WindowHook
from wandlib.attention.models import cache_inputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Profile:
    """The measurements of one decode."""

    ms: list[float]
    """Wall time of each step, in milliseconds."""
    cache_bytes: list[int]
    """Bytes of keys and values after each step."""
    memory_bytes: list[int]
    """Bytes of ``memory`` after each step."""
    memory: str
    """What ``memory_bytes`` are: "cuda allocator" or "resident set"."""
    prefill_ms: float
    """Wall time of the prefill, in milliseconds."""
    conditioning: int
    """Conditioning tokens."""
    window: int | None
    """Generated keys that a query saw; None: full attention."""
    batch: int
    """Sequences."""
    device: str
    """Where it ran."""

    @property
    def median_ms(self) -> float:
        """Median of the steps, in milliseconds."""
        return statistics.median(self.ms)

    @property
    def growth(self) -> float:
        """Median of the last tenth of the steps over the median of the second tenth: 1 where a step costs the same."""
        tenth = max(1, len(self.ms) // 10)
        return statistics.median(self.ms[-tenth:]) / statistics.median(self.ms[tenth : 2 * tenth] or self.ms)

    def to_json(self, path: str | Path | None = None) -> str:
        """Everything measured, as JSON; also written to ``path`` if given."""
        text = json.dumps(asdict(self))
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def plot(self) -> Figure:
        """Draw milliseconds, cache and memory (MB) over the steps."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 6), layout="constrained")
        title = "full attention" if self.window is None else f"window {self.window}"
        rows = (
            ("step, ms", self.ms),
            ("cache, MB", [held / 1e6 for held in self.cache_bytes]),
            (f"{self.memory}, MB", [held / 1e6 for held in self.memory_bytes]),
        )
        for axes, (label, values) in zip(figure.subplots(3, 1, sharex=True), rows, strict=True):
            axes.plot(range(1, len(values) + 1), values, linewidth=1)
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
        axes.set_xlabel("generated tokens")
        figure.suptitle(f"{title}, {self.conditioning} conditioning tokens, batch {self.batch}, {self.device}")
        return figure


def resident_bytes() -> int:
    """Resident set of this process; its peak where the system does not tell the current one, 0 on Windows."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * mmap.PAGESIZE
    try:
        import resource
    except ImportError:  # Windows has no such module, and no such number without another package
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def held_bytes(cache: WandCache | DynamicCache) -> int:
    """Bytes of keys and values that a cache holds."""
    if isinstance(cache, WandCache):
        return cache.nbytes
    layers: list[Any] = cache.layers
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


@torch.inference_mode()
def profile(
    model: nn.Module, conditioning: int = 187, steps: int = 1500, *, batch: int = 1, warmup: int = 20
) -> Profile:
    """Decode random tokens and measure every step.

    A converted model runs under its window; inside ``with full_attention(model)``, or unconverted, under full
    attention.

    Parameters
    ----------
    model
        A transformers causal decoder that takes ``input_ids``.
    conditioning, steps
        Conditioning tokens of the prefill, and tokens to generate after it.
    batch
        Sequences.
    warmup
        Steps of a first decode that is not recorded.

    Raises
    ------
    ValueError
        If ``conditioning`` or ``steps`` is below 1.
    """
    if conditioning < 1 or steps < 1:
        raise ValueError(f"need at least one conditioning token and one step, got {conditioning} and {steps}")
    decoder = base_decoder(model)
    hook = getattr(decoder, "wand", None)
    window = hook.window if isinstance(hook, WindowHook) and not hook.disabled else None
    device = next(decoder.parameters()).device
    on_cuda = device.type == "cuda"
    ids = torch.randint(decoder.config.get_text_config().vocab_size, (batch, conditioning + 1), device=device)

    def milliseconds(cache: Any, new: torch.Tensor) -> float:
        if on_cuda:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        model(input_ids=new, use_cache=True, **cache_inputs(decoder, cache))
        if on_cuda:
            torch.cuda.synchronize(device)
        return 1e3 * (time.perf_counter() - start)

    for count in (warmup, steps):
        cache = DynamicCache(config=decoder.config) if window is None else WandCache(decoder.config, window)
        prefill_ms = milliseconds(cache, ids[:, :-1])
        ms, held, memory = [], [], []
        for _ in range(count):
            ms.append(milliseconds(cache, ids[:, -1:]))
            held.append(held_bytes(cache))
            memory.append(torch.cuda.memory_allocated(device) if on_cuda else resident_bytes())
    return Profile(
        ms=ms,
        cache_bytes=held,
        memory_bytes=memory,
        memory="cuda allocator" if on_cuda else "resident set",
        prefill_ms=prefill_ms,
        conditioning=conditioning,
        window=window,
        batch=batch,
        device=torch.cuda.get_device_name(device) if on_cuda else str(device),
    )
