"""Benchmarks of a CPU, by name. Each ratio that has to reach a value has this as its target."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache

from benchmarks.caches import BASELINES, SHARED, SINK, STATIC, STOCK, WINDOW, fill, fixed_cache
from benchmarks.floor import Floor
from benchmarks.report import Result, Row
from benchmarks.shapes import Shape, cosyvoice2, indextts, mini
from benchmarks.sweep import FLOOR, Sweep, sweep
from benchmarks.timing import Generate, Loop, Runner, Steps, interleave, ratio
from wandlib import WandCache, compile_step, convert, restore
from wandlib.attention.models import cache_inputs
from wandlib.profiling.estimate import cache_bytes

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
COMPILED: dict[str, dict[str, Any]] = {"compiled": {}}
"""Arguments of `wandlib.compile_step`, by the name of the row."""


@dataclass(frozen=True)
class Settings:
    """Where to run, and how long."""

    device: str = "cpu"
    quick: bool = False

    def rounds(self, full: int) -> int:
        """Return the number of visits to each baseline."""
        return 1 if self.quick else full


def speed(measured: Sweep, baseline: str, seconds: float, target: str = "") -> Row:
    """Return how many times faster the window decodes so many seconds of speech than ``baseline``."""
    value = ratio(measured.total(baseline, seconds), measured.total(WINDOW, seconds))
    return Row(measured.title, f"{seconds:g} s: speed over {baseline}", value, target)


def batch_one(settings: Settings) -> Result:
    """Measure CosyVoice 2's shape at batch 1, in 32 and 16 bit, against every baseline."""
    result, shape = Result(), cosyvoice2(settings.quick)
    for name, dtype in DTYPES.items():
        title = f"{shape.name}, {name}, batch 1"
        measured = sweep(
            title,
            shape,
            dtype,
            device=settings.device,
            baselines=(STOCK, STATIC, SINK, WINDOW),
            seconds=(0, 4, 10, 60, 120),
            rounds=settings.rounds(4),
            steps=3,
        )
        result.sweeps.append(measured)
        result.rows += [speed(measured, STOCK, 10, ">= 1.0"), speed(measured, STOCK, 60, "> 1.0")]
        result.rows += [speed(measured, baseline, seconds) for baseline in (STATIC, SINK) for seconds in (10, 60)]
        for baseline, target in ((STOCK, ""), (WINDOW, "<= 1.03")):
            grown = ratio(measured.at(baseline, 120), measured.at(baseline, 4))
            result.rows.append(Row(title, f"{baseline}: step at 120 s / step at 4 s", grown, target))
    return result


def batch_sixteen(settings: Settings) -> Result:
    """Measure CosyVoice 2's shape at batch 16, in 32 and 16 bit."""
    result, shape = Result(), cosyvoice2(settings.quick)
    for name, dtype in DTYPES.items():
        measured = sweep(
            f"{shape.name}, {name}, batch 16",
            shape,
            dtype,
            device=settings.device,
            baselines=(STOCK, WINDOW),
            seconds=(0, 10, 60, 120, 180),
            rounds=settings.rounds(3),
            steps=3,
            batch=16,
        )
        result.sweeps.append(measured)
        for seconds, target in ((10, ""), (60, ">= 1.5"), (180, ">= 3.0")):
            result.rows.append(speed(measured, STOCK, seconds, target))
            bare = ratio(measured.total(STOCK, seconds), [shape.steps(seconds) * taken for taken in measured.floor])
            result.rows.append(Row(measured.title, f"{seconds:g} s: speed of the floor over {STOCK}", bare))
    return result


def beams(settings: Settings) -> Result:
    """Measure IndexTTS 1.5's shape with three beams; the prompt is stored for each of them, or once."""
    shape = indextts(settings.quick)
    measured = sweep(
        f"{shape.name}, fp32, {shape.beams} beams",
        shape,
        torch.float32,
        device=settings.device,
        baselines=(STOCK, WINDOW, SHARED),
        seconds=(0, 10, 25),
        rounds=settings.rounds(4),
        steps=3,
    )
    result = Result([speed(measured, STOCK, seconds) for seconds in (10, 25)], [measured])
    for seconds in (10, 25):
        value = ratio(measured.total(WINDOW, seconds), measured.total(SHARED, seconds))
        result.rows.append(Row(measured.title, f"{seconds} s: speed of {SHARED} over {WINDOW}", value))
    for name in (STOCK, WINDOW, SHARED):
        held = cache_bytes(
            shape.config,
            conditioning=shape.conditioning,
            generated=shape.steps(10),
            window=shape.window if BASELINES[name].windowed else None,
            beams=shape.beams,
            shared=name == SHARED,
        )
        result.rows.append(Row(measured.title, f"{name}: cache after 10 s, MB", held / 1e6))
    return result


def growth(settings: Settings) -> Result:
    """Compare the end of 3,000 steps with their start, and interpolation with a whole decode, at the voice's shape."""
    shape, seconds = mini(settings.quick), 120
    title, steps = f"{shape.name}, fp32, batch 1", shape.steps(seconds)
    measured = sweep(
        title,
        shape,
        torch.float32,
        device=settings.device,
        baselines=(STOCK, STATIC, SINK, WINDOW),
        seconds=(0, 10, 30, 60, 90, seconds),
        rounds=settings.rounds(10),
        steps=4,
        whole=(STOCK, WINDOW),
    )
    result = Result([speed(measured, STOCK, 10, ">= 1.0"), speed(measured, STOCK, 60, "> 1.0")], [measured])
    result.rows += [speed(measured, baseline, 60) for baseline in (STATIC, SINK)]
    models = shape.build(torch.float32, settings.device)
    for name, target in ((STOCK, ""), (WINDOW, "<= 1.03")):
        # Interleaved, since the machine may be slower some minutes later.
        start, end = (
            Generate(
                models[BASELINES[name].windowed], BASELINES[name].cache(shape, 0), prompt=shape.conditioning, batch=1
            )
            for _ in range(2)
        )
        start(49)
        end(steps - 101)
        taken = interleave({"start": start, "end": end}, rounds=settings.rounds(9), steps=9)
        grown = ratio(taken["end"], taken["start"])
        result.rows.append(Row(title, f"{name}: last 100 of {steps} steps / steps 50 to 150", grown, target))
    for name in measured.whole:
        result.rows.append(
            Row(
                title,
                f"{name}: interpolation error against a whole decode",
                measured.interpolation_error(name),
                "< 0.1",
            )
        )
    return result


def floor(settings: Settings) -> Result:
    """Compare a step with its bare kernels, at two shapes."""
    quick = {"compiled": {"backend": "eager"}}
    large, small = cosyvoice2(settings.quick), mini(settings.quick)
    compiled = quick if settings.quick else COMPILED
    targets = {"stock": "", "eager": "<= 1.3"}
    rows = against_floor(settings, large, torch.float32, targets, {}, rounds=8, steps=3)
    targets = {"stock": "", "eager": "<= 3.0", "compiled": "<= 1.5"}
    rows += against_floor(settings, small, torch.float32, targets, compiled, rounds=40, steps=10)
    return Result(rows)


def against_floor(
    settings: Settings,
    shape: Shape,
    dtype: torch.dtype,
    targets: Mapping[str, str],
    compiled: Mapping[str, dict[str, Any]],
    *,
    rounds: int,
    steps: int,
) -> list[Row]:
    """Divide a step of the window in a bare decode loop, with a full ring, by the floor.

    Parameters
    ----------
    targets
        Targets by name: "stock", "eager", and the names of ``compiled``.
    compiled
        Arguments of `wandlib.compile_step`, by name; these run over a static cache.
    """
    taken = step_times(settings, shape, dtype, compiled, batch=1, rounds=rounds, steps=steps)
    bits = next(name for name, known in DTYPES.items() if known == dtype)
    where = f"{shape.name}, {bits}, batch 1"
    return [
        Row(where, f"{name} step / floor", ratio(taken[name], taken[FLOOR]), target) for name, target in targets.items()
    ]


def step_times(
    settings: Settings,
    shape: Shape,
    dtype: torch.dtype,
    compiled: Mapping[str, dict[str, Any]],
    *,
    batch: int,
    rounds: int,
    steps: int,
    full: Sequence[float] = (),
) -> dict[str, list[float]]:
    """Measure a step, in milliseconds by round: floor, stock model over a free cache, ours, ours compiled.

    Parameters
    ----------
    compiled
        Arguments of `wandlib.compile_step`, by name.
    full
        Seconds of speech for which a model with full attention, compiled with the last of these, also decodes with a
        StaticCache.
    """
    device = settings.device
    stock, converted = shape.build(dtype, device)
    token = torch.ones(batch, 1, dtype=torch.long, device=device)

    def loop(model: Any, prefill: Any, cache: Cache) -> Runner:
        with torch.no_grad():
            prefill(input_ids=token.expand(-1, shape.conditioning), **cache_inputs(model, cache), use_cache=True)
        decode = Steps(Loop(model, cache, token), device)
        decode(shape.window)  # fills the ring, and compiles
        return decode

    torch._dynamo.reset()
    rounds = settings.rounds(rounds)
    floor = Floor(stock, batch=batch, slots=shape.conditioning + shape.window)
    runners: dict[str, Runner] = {FLOOR: Steps(floor, device)}
    runners["stock"] = Steps(Loop(stock, fixed_cache(shape, dtype, device, batch), token), device)
    runners["eager"] = loop(converted, converted, WandCache(shape.config, shape.window))
    for name, options in compiled.items():
        model = shape.build(dtype, device)[1]  # its attention will be another than that of the eager one
        runners[name] = loop(compile_step(model, **options), model, WandCache(shape.config, shape.window, static=True))
    if full:
        model = shape.build(dtype, device)[0]
        compiled_stock = compile_step(model, **options)
    for seconds in full:
        taken = shape.window + 1 + (rounds + 1) * (steps + 1)
        cache = BASELINES[STATIC].cache(shape, shape.conditioning + max(shape.steps(seconds), taken))
        runners[f"{STATIC} for {seconds:g} s, {name}"] = loop(compiled_stock, model, cache)
    return interleave(runners, rounds=rounds, steps=steps)


@torch.no_grad()
def overhead(settings: Settings) -> Result:
    """Measure what hook and cache add to a step of the embedded voice's shape, against steps without either.

    Two copies of a model that differ only in their place in memory differ in time by more than one percent: each copy
    takes both roles, which cancels this.
    """
    shape, device = mini(settings.quick), settings.device
    one, other = shape.build(torch.float32, device)
    restore(other)
    token = torch.ones(1, 1, dtype=torch.long, device=device)
    added = []
    for model, windowed in ((one, other), (other, one)):
        cache = fill(
            WandCache(shape.config, shape.window), shape, 2 * shape.window, batch=1, dtype=torch.float32, device=device
        )
        convert(windowed, window=shape.window)
        without = fixed_cache(shape, torch.float32, device, batch=1)
        loops = {"without": Loop(model, without, token), "with": Loop(windowed, cache, token)}
        runners: dict[str, Runner] = {name: Steps(loop, device) for name, loop in loops.items()}
        taken = interleave(runners, rounds=settings.rounds(300), steps=5)
        restore(windowed)
        added.append(ratio(taken["with"], taken["without"]))
    title = f"{shape.name}, fp32, batch 1"
    share = statistics.geometric_mean(added) - 1
    return Result([Row(title, "hook and cache: share added to a step", share, "< 0.03")])


BENCHMARKS: dict[str, Callable[[Settings], Result]] = {
    "batch1": batch_one,
    "batch16": batch_sixteen,
    "beams": beams,
    "growth": growth,
    "floor": floor,
    "overhead": overhead,
}
