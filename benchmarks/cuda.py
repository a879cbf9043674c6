"""The benchmark of a GPU: eager, compiled, CUDA graphs; batch 1 to 256; what fits; the share of the bandwidth."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from benchmarks.caches import RIVALS, STOCK, WINDOW, fill
from benchmarks.floor import Floor
from benchmarks.report import Part, Row
from benchmarks.shapes import Shape, cosyvoice2
from benchmarks.suite import DTYPES, Settings, speed, step_times
from benchmarks.sweep import sweep
from benchmarks.timing import Loop, Steps
from wandlib.profiling.estimate import cache_bytes

COMPILED: dict[str, dict[str, Any]] = {"compiled": {"cuda_graphs": False}, "CUDA graphs": {}}
"""How to compile a step, by name: arguments of `wandlib.compile_step`."""
SECONDS = (0.0, 10.0, 60.0, 180.0)
BATCHES = (1, 16, 64, 256)
DTYPE = DTYPES["bf16"]


def cuda(settings: Settings) -> Part:
    """CosyVoice 2's shape in bf16, up to three minutes of speech."""
    part, shape, device = Part(), cosyvoice2(settings.quick), settings.device
    read = bandwidth(device, 2**20 if settings.quick else 2**30)
    part.rows.append(Row(device, "bandwidth of a copy, GB/s", read / 1e9))
    for batch in BATCHES[:2] if settings.quick else BATCHES:
        title = f"{shape.name}, bf16, batch {batch}"
        places = tuple(s for s in SECONDS if s <= longest(shape, batch, free_bytes(device)))
        measured = sweep(
            title,
            shape,
            DTYPE,
            device=device,
            rivals=(STOCK, WINDOW),
            seconds=places,
            rounds=settings.rounds(5),
            steps=10,
            batch=batch,
        )
        part.sweeps.append(measured)
        part.rows += [speed(measured, STOCK, seconds) for seconds in places if seconds]
        compiled = {"compiled": {"backend": "eager"}} if settings.quick else COMPILED
        taken = step_times(settings, shape, DTYPE, compiled, batch=batch, rounds=10, steps=20, full=places[1:])
        needed = Floor(shape.build(DTYPE, device)[0], batch=batch, slots=shape.prompt + shape.window).nbytes
        for name, rounds in taken.items():
            part.rows.append(Row(title, f"{name}: ms a step", statistics.median(rounds)))
        for name in ("eager", *compiled):
            share = needed / (statistics.median(taken[name]) / 1e3) / read
            target = ">= 0.6" if name == "CUDA graphs" and batch == 1 else ""
            part.rows.append(Row(title, f"{name}: share of the bandwidth", share, target))
    for name in (STOCK, WINDOW):
        fits = largest_batch(name, shape, 180, device, most=4 if settings.quick else 2**14)
        part.rows.append(Row(f"{shape.name}, bf16", f"{name}: largest batch (power of 2) after 180 s", fits))
    return part


def bandwidth(device: str, size: int) -> float:
    """Bytes a second that a copy of ``size`` bytes reads and writes."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / (statistics.median(Steps(lambda: target.copy_(source), device)(20)) / 1e3)


def free_bytes(device: str) -> float:
    """Free memory of a GPU; of a CPU, on which only quick runs come here, without end."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.startswith("cuda") else float("inf")


def longest(shape: Shape, batch: int, free: float) -> float:
    """Seconds of speech up to which the caches of all places stay within half of ``free`` bytes."""
    held = 0.0
    for number, seconds in enumerate(SECONDS):
        steps = shape.steps(seconds)
        for window in (None, shape.window):
            held += cache_bytes(
                shape.config, conditioning=shape.prompt, generated=steps, window=window, dtype=DTYPE, batch=batch
            )
        if held > free / 2:
            if number < 2:
                raise ValueError(
                    f"batch {batch} needs {2 * held / 1e9:.1f} GB for 10 s of speech, {free / 1e9:.1f} GB are free"
                )
            return SECONDS[number - 1]
    return SECONDS[-1]


@torch.no_grad()
def largest_batch(name: str, shape: Shape, seconds: float, device: str, *, most: int) -> int:
    """Largest power of two up to ``most`` at which a step after so many seconds of speech fits in memory; 0: none."""
    model = shape.build(DTYPE, device)[RIVALS[name].windowed]
    # What has left the window takes no memory.
    generated = shape.window if RIVALS[name].windowed else shape.steps(seconds)
    batch = 1
    while batch <= most:
        try:
            cache = RIVALS[name].cache(shape, shape.prompt + generated)
            fill(cache, shape, generated, batch=batch, dtype=DTYPE, device=device)
            Loop(model, cache, torch.ones(batch, 1, dtype=torch.long, device=device))()
        except torch.OutOfMemoryError:
            break
        del cache  # before the next, twice as large
        batch *= 2
    return batch // 2
