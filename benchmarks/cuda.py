"""Benchmark of a GPU: eager, compiled, CUDA graphs; batch 1 to 256; what fits; the share of the bandwidth."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from benchmarks.caches import BASELINES, STOCK, WINDOW, fill
from benchmarks.floor import Floor
from benchmarks.report import Result, Row
from benchmarks.shapes import Shape, cosyvoice2
from benchmarks.suite import DTYPES, Settings, speed, step_times
from benchmarks.sweep import sweep
from benchmarks.timing import Loop, Steps
from wandlib.profiling.estimate import cache_bytes

COMPILED: dict[str, dict[str, Any]] = {"compiled": {"cuda_graphs": False}, "CUDA graphs": {}}
"""Arguments of `wandlib.compile_step`, by the name of the row."""
SECONDS = (0.0, 10.0, 60.0, 180.0)
BATCHES = (1, 16, 64, 256)
DTYPE = DTYPES["bf16"]


def cuda(settings: Settings) -> Result:
    """Measure CosyVoice 2's shape in bf16, up to three minutes of speech."""
    result, shape, device = Result(), cosyvoice2(settings.quick), settings.device
    read = bandwidth(device, 2**20 if settings.quick else 2**30)
    result.rows.append(Row(device, "bandwidth of a copy, GB/s", read / 1e9))
    for batch in BATCHES[:2] if settings.quick else BATCHES:
        title = f"{shape.name}, bf16, batch {batch}"
        places = tuple(s for s in SECONDS if s <= longest(shape, batch, free_bytes(device)))
        measured = sweep(
            title,
            shape,
            DTYPE,
            device=device,
            baselines=(STOCK, WINDOW),
            seconds=places,
            rounds=settings.rounds(5),
            steps=10,
            batch=batch,
        )
        result.sweeps.append(measured)
        result.rows += [speed(measured, STOCK, seconds) for seconds in places if seconds]
        compiled = {"compiled": {"backend": "eager"}} if settings.quick else COMPILED
        taken = step_times(settings, shape, DTYPE, compiled, batch=batch, rounds=10, steps=20, full=places[1:])
        needed = Floor(shape.build(DTYPE, device)[0], batch=batch, slots=shape.conditioning + shape.window).nbytes
        for name, rounds in taken.items():
            result.rows.append(Row(title, f"{name}: ms a step", statistics.median(rounds)))
        for name in ("eager", *compiled):
            share = needed / (statistics.median(taken[name]) / 1e3) / read
            target = ">= 0.6" if name == "CUDA graphs" and batch == 1 else ""
            result.rows.append(Row(title, f"{name}: share of the bandwidth", share, target))
    for name in (STOCK, WINDOW):
        fits = largest_batch(name, shape, 180, device, most=4 if settings.quick else 2**14)
        result.rows.append(Row(f"{shape.name}, bf16", f"{name}: largest batch (power of 2) after 180 s", fits))
    return result


def bandwidth(device: str, size: int) -> float:
    """Measure the bytes per second that a copy of ``size`` bytes reads and writes."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / (statistics.median(Steps(lambda: target.copy_(source), device)(20)) / 1e3)


def free_bytes(device: str) -> float:
    """Return the free memory of a GPU; infinite for a CPU, which only quick runs use."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.startswith("cuda") else float("inf")


def longest(shape: Shape, batch: int, free: float) -> float:
    """Return the seconds of speech up to which the caches of all places fit into half of ``free`` bytes."""
    held = 0.0
    for number, seconds in enumerate(SECONDS):
        steps = shape.steps(seconds)
        for window in (None, shape.window):
            held += cache_bytes(
                shape.config, conditioning=shape.conditioning, generated=steps, window=window, dtype=DTYPE, batch=batch
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
    """Return the largest power of two up to ``most`` at which a step after so many seconds fits in memory; 0: none."""
    model = shape.build(DTYPE, device)[BASELINES[name].windowed]
    # Tokens outside the window take no memory.
    generated = shape.window if BASELINES[name].windowed else shape.steps(seconds)
    batch = 1
    while batch <= most:
        try:
            cache = BASELINES[name].cache(shape, shape.conditioning + generated)
            fill(cache, shape, generated, batch=batch, dtype=DTYPE, device=device)
            Loop(model, cache, torch.ones(batch, 1, dtype=torch.long, device=device))()
        except torch.OutOfMemoryError:
            break
        del cache  # before the next, twice as large
        batch *= 2
    return batch // 2
