"""The benchmarks of a CPU, by name. What each ratio is held against stands beside it as its target."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from benchmarks.caches import RIVALS, SHARED, SINK, STATIC, STOCK, WINDOW, fill
from benchmarks.floor import Floor
from benchmarks.report import Part, Row
from benchmarks.shapes import Shape, cosyvoice2, indextts, mini
from benchmarks.sweep import FLOOR, Sweep, sweep
from benchmarks.timing import Generate, Loop, Runner, Steps, in_turn, ratio
from wandlib import WandCache, compile_step, convert, restore
from wandlib.attention.models import cache_inputs
from wandlib.profiling.estimate import cache_bytes, head_shape

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
COMPILED: dict[str, dict[str, Any]] = {"compiled": {}}
"""How to compile a step, by name: arguments of `wandlib.compile_step`."""


@dataclass(frozen=True)
class Settings:
    """Where to run, and how long."""

    device: str = "cpu"
    quick: bool = False

    def rounds(self, full: int) -> int:
        """Visits to each rival."""
        return 1 if self.quick else full


def speed(measured: Sweep, rival: str, seconds: float, target: str = "") -> Row:
    """How many times faster the window decodes so many seconds of speech than ``rival`` does."""
    value = ratio(measured.total(rival, seconds), measured.total(WINDOW, seconds))
    return Row(measured.title, f"{seconds:g} s: speed over {rival}", value, target)


def batch_one(settings: Settings) -> Part:
    """CosyVoice 2's shape at batch 1, in 32 and 16 bit, against every rival."""
    part, shape = Part(), cosyvoice2(settings.quick)
    for name, dtype in DTYPES.items():
        title = f"{shape.name}, {name}, batch 1"
        measured = sweep(
            title,
            shape,
            dtype,
            device=settings.device,
            rivals=(STOCK, STATIC, SINK, WINDOW),
            seconds=(0, 4, 10, 60, 120),
            rounds=settings.rounds(4),
            steps=3,
        )
        part.sweeps.append(measured)
        part.rows += [speed(measured, STOCK, 10, ">= 1.0"), speed(measured, STOCK, 60, "> 1.0")]
        part.rows += [speed(measured, rival, seconds) for rival in (STATIC, SINK) for seconds in (10, 60)]
        for rival, target in ((STOCK, ""), (WINDOW, "<= 1.03")):
            grown = ratio(measured.at(rival, 120), measured.at(rival, 4))
            part.rows.append(Row(title, f"{rival}: step at 120 s / step at 4 s", grown, target))
    return part


def batch_sixteen(settings: Settings) -> Part:
    """CosyVoice 2's shape, sixteen utterances at once, in 32 and 16 bit."""
    part, shape = Part(), cosyvoice2(settings.quick)
    for name, dtype in DTYPES.items():
        measured = sweep(
            f"{shape.name}, {name}, batch 16",
            shape,
            dtype,
            device=settings.device,
            rivals=(STOCK, WINDOW),
            seconds=(0, 10, 60, 120, 180),
            rounds=settings.rounds(3),
            steps=3,
            batch=16,
        )
        part.sweeps.append(measured)
        for seconds, target in ((10, ""), (60, ">= 1.5"), (180, ">= 3.0")):
            part.rows.append(speed(measured, STOCK, seconds, target))
            bare = ratio(measured.total(STOCK, seconds), [shape.steps(seconds) * ms for ms in measured.floor])
            part.rows.append(Row(measured.title, f"{seconds:g} s: speed of the floor over {STOCK}", bare))
    return part


def beams(settings: Settings) -> Part:
    """IndexTTS 1.5's shape, three beams, as upstream decodes; with the prompt kept once for each, and once for all."""
    shape = indextts(settings.quick)
    measured = sweep(
        f"{shape.name}, fp32, {shape.beams} beams",
        shape,
        torch.float32,
        device=settings.device,
        rivals=(STOCK, WINDOW, SHARED),
        seconds=(0, 10, 25),
        rounds=settings.rounds(4),
        steps=3,
    )
    part = Part([speed(measured, STOCK, seconds) for seconds in (10, 25)], [measured])
    for seconds in (10, 25):
        value = ratio(measured.total(WINDOW, seconds), measured.total(SHARED, seconds))
        part.rows.append(Row(measured.title, f"{seconds} s: speed of {SHARED} over {WINDOW}", value))
    for name in (STOCK, WINDOW, SHARED):
        held = cache_bytes(
            shape.config,
            conditioning=shape.prompt,
            generated=shape.steps(10),
            window=shape.window if RIVALS[name].windowed else None,
            beams=shape.beams,
            shared=name == SHARED,
        )
        part.rows.append(Row(measured.title, f"{name}: cache after 10 s, MB", held / 1e6))
    return part


def growth(settings: Settings) -> Part:
    """The embedded voice's shape: the end of 3,000 steps beside their start, and the places beside a whole decode."""
    shape, seconds = mini(settings.quick), 120
    title, steps = f"{shape.name}, fp32, batch 1", shape.steps(seconds)
    measured = sweep(
        title,
        shape,
        torch.float32,
        device=settings.device,
        rivals=(STOCK, STATIC, SINK, WINDOW),
        seconds=(0, 10, 30, 60, 90, seconds),
        rounds=settings.rounds(10),
        steps=4,
        whole=(STOCK, WINDOW),
    )
    part = Part([speed(measured, STOCK, 10, ">= 1.0"), speed(measured, STOCK, 60, "> 1.0")], [measured])
    part.rows += [speed(measured, rival, 60) for rival in (STATIC, SINK)]
    models = shape.build(torch.float32, settings.device)
    for name, target in ((STOCK, ""), (WINDOW, "<= 1.03")):
        # In turn: minutes apart, the machine is not the same.
        start, end = (
            Generate(models[RIVALS[name].windowed], RIVALS[name].cache(shape, 0), prompt=shape.prompt, batch=1)
            for _ in range(2)
        )
        start(49)
        end(steps - 101)
        taken = in_turn({"start": start, "end": end}, rounds=settings.rounds(9), steps=9)
        grown = ratio(taken["end"], taken["start"])
        part.rows.append(Row(title, f"{name}: last 100 of {steps} steps / steps 50 to 150", grown, target))
    for name in measured.whole:
        part.rows.append(
            Row(title, f"{name}: measured at places, off a whole decode by", measured.apart(name), "< 0.1")
        )
    return part


def floor(settings: Settings) -> Part:
    """How far a step is from its bare kernels, at both shapes."""
    quick = {"compiled": {"backend": "eager"}}
    large, small = cosyvoice2(settings.quick), mini(settings.quick)
    compiled = quick if settings.quick else COMPILED
    targets = {"stock": "", "eager": "<= 1.3"}
    rows = against_floor(settings, large, torch.float32, targets, {}, rounds=8, steps=3)
    targets = {"stock": "", "eager": "<= 3.0", "compiled": "<= 1.5"}
    rows += against_floor(settings, small, torch.float32, targets, compiled, rounds=40, steps=10)
    return Part(rows)


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
    """A step of the window in a bare decode loop, over the floor; the ring is full.

    Parameters
    ----------
    targets
        By name: "stock", "eager", and those of ``compiled``.
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
    """Milliseconds, by round: the floor, the stock model over a cache that costs nothing, ours, and ours compiled.

    Parameters
    ----------
    compiled
        Arguments of `wandlib.compile_step`, by name.
    full
        Seconds of speech for which a model under full attention, compiled with the last of these, decodes with a
        StaticCache as well.
    """
    device = settings.device
    stock, converted = shape.build(dtype, device)
    token = torch.ones(batch, 1, dtype=torch.long, device=device)

    def loop(model: Any, prefill: Any, cache: Cache) -> Runner:
        with torch.no_grad():
            prefill(input_ids=token.expand(-1, shape.prompt), **cache_inputs(model, cache), use_cache=True)
        decode = Steps(Loop(model, cache, token), device)
        decode(shape.window)  # fills the ring, and compiles
        return decode

    torch._dynamo.reset()
    rounds = settings.rounds(rounds)
    floor = Floor(stock, batch=batch, slots=shape.prompt + shape.window)
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
        cache = RIVALS[STATIC].cache(shape, shape.prompt + max(shape.steps(seconds), taken))
        runners[f"{STATIC} for {seconds:g} s, {name}"] = loop(compiled_stock, model, cache)
    return in_turn(runners, rounds=rounds, steps=steps)


class FixedLayer(DynamicLayer):
    """As many entries as the window has, handed out without storing anything: a cache that costs nothing."""

    keys: Any
    values: Any

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return what was there from the start."""
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys attention will read, and offset 0."""
        return self.keys.shape[2], 0


def fixed_cache(shape: Shape, dtype: torch.dtype, device: str, batch: int) -> Cache:
    """A cache whose steps neither store nor plan."""
    _, heads, dimension = head_shape(shape.config)
    layers = shape.config.num_hidden_layers
    size = (2, batch, heads, shape.prompt + shape.window, dimension)
    return Cache(layers=[FixedLayer(*torch.randn(size, dtype=dtype, device=device)) for _ in range(layers)])


@torch.no_grad()
def overhead(settings: Settings) -> Part:
    """What hook and cache add to a step of the embedded voice's shape: a few steps in turn with some without either.

    Two copies of a model, equal but for where they lie in memory, differ by more than one per cent: each takes both
    parts, and that cancels.
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
        taken = in_turn(runners, rounds=settings.rounds(300), steps=5)
        restore(windowed)
        added.append(ratio(taken["with"], taken["without"]))
    title = f"{shape.name}, fp32, batch 1"
    share = statistics.geometric_mean(added) - 1
    return Part([Row(title, "hook and cache: share added to a step", share, "< 0.03")])


BENCHMARKS: dict[str, Callable[[Settings], Part]] = {
    "batch1": batch_one,
    "batch16": batch_sixteen,
    "beams": beams,
    "growth": growth,
    "floor": floor,
    "overhead": overhead,
}
