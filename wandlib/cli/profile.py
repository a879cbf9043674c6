"""``wandlib profile``: what a step costs with full attention and with the window, measured here, for any shape."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from wandlib.cli import options
from wandlib.cli.options import (
    Config,
    Context,
    Force,
    check_new,
    check_parent,
    console,
    exit_on_input_error,
    refuse_ignored,
)
from wandlib.systems import InputError
from wandlib.systems.registry import SYSTEMS, TRAINING, training_of
from wandlib.systems.settings import check_device

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from wandlib.profiling.measure import Profile

TABLE = {"model", "conditioning", "window", "batch", "json", "plot", "checkpoint", "length", "lora", "bf16", "force"}
IGNORED = {
    "with --train of --system": {"model", "checkpoint"},
    "with --train": {"steps", "conditioning", "window", "warmup", "device", "dtype"}
    | {"json", "plot", "measured_too", "force"},
    "with --system and without --measure": TABLE | {"steps", "warmup", "device", "dtype"},
    "with --system": TABLE,
    "without --system": {"measured_too"},
    "without --train": {"length", "lora", "bf16"},
}
"""The parameters that have no effect on a way of profiling."""


def profile(
    context: Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A system (mini, or another with --checkpoint); a shape of the paper: cosyvoice2, indextts, sparktts; "
            "or a folder or hub name with the config.json of a causal decoder. Shapes and configs get random weights."
        ),
    ] = "mini",
    steps: Annotated[int, typer.Option("--steps", "-n", min=1, help="Tokens to generate.")] = 500,
    conditioning: Annotated[
        int | None, typer.Option("--conditioning", "-c", min=1, help="Prompt tokens; default: the paper's, else 187.")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            "-w",
            min=1,
            help="Generated keys a step sees; default: the paper's, else 32 (the embedded student has 16).",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", "-b", min=1, help="Utterances at once.")] = 1,
    warmup: Annotated[int, typer.Option(min=0, help="Steps before the measured ones.")] = 20,
    device: Annotated[str, typer.Option(help="Where it runs: cpu, cuda, mps.")] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Of weights and cache.")] = "float32",
    json: Annotated[Path | None, typer.Option(help="Write every step of both to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw both into this file: .svg, .png or .pdf.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a system's checkpoint: measure its own language model.")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(help=f"What ten seconds cost at the published size, on paper: all, {', '.join(TRAINING)}."),
    ] = None,
    measured_too: Annotated[
        bool, typer.Option("--measure", help="With --system: also the milliseconds of its last --steps. Minutes.")
    ] = False,
    train: Annotated[
        bool, typer.Option("--train", help="What training takes in memory, computed, of --system or of MODEL.")
    ] = False,
    length: Annotated[int, typer.Option(min=1, help="With --train: tokens of the longest utterance.")] = 512,
    lora: Annotated[int | None, typer.Option(min=1, help="With --train: adapters of this rank, no teacher.")] = None,
    bf16: Annotated[bool, typer.Option("--bf16/--no-bf16", help="With --train: compute in bfloat16.")] = True,
    force: Force = False,
    config: Config = None,
) -> None:
    """Decode random tokens with full attention, then with the window: what each step costs, measured and on paper."""
    with exit_on_input_error():
        for way in ways(train, system, measured_too):
            refuse_ignored(context, IGNORED[way], way)
        import torch

        if train or system is not None:
            from wandlib.cli import system_costs

            if train:
                if system == system_costs.ALL:
                    raise InputError("--train is for one system: name it")
                student = (
                    fake_student(model, length, checkpoint) if system is None else training_of(system).random_model
                )
                memory = system_costs.training_memory_of(student, lora=lora, batch=batch, length=length, bf16=bf16)
                title = f"{system or model}, batch {batch} x {length} tokens" + (", bfloat16" if bf16 else "")
                Console().print(system_costs.memory_table(memory, title + (f", LoRA {lora}" if lora else "")))
                return
            names = system_costs.names_of(str(system))
            place, kind = check_device(device), getattr(torch, dtype)
            clock = partial(system_costs.step_milliseconds, steps=steps, warmup=warmup, device=place, dtype=kind)
            Console().print(system_costs.costs_table(names, clock if measured_too else None))
            return
        from wandlib.attention.conversion import full_attention
        from wandlib.profiling.measure import profile as measure
        from wandlib.profiling.paper_systems import SHAPES

        if plot is not None and plot.suffix not in {".svg", ".png", ".pdf"}:
            raise InputError(f"cannot draw into {plot.name!r}: name a .svg, .png or .pdf file")
        for file in (json, plot):
            check_parent(file)
            if file is not None:
                check_new(file, force)
        shape = SHAPES.get(model)
        conditioning = conditioning or (shape.conditioning if shape else 187)
        window = window or (shape.window if shape else 32)
        with console.status(f"building {model}"):
            decoder: Any = build(model, conditioning + steps, checkpoint)
            decoder.to(check_device(device), getattr(torch, dtype))
            apply_window(decoder, window)
        measured = {}
        with console.status("full attention"), full_attention(decoder):
            measured["full"] = measure(decoder, conditioning, steps, batch=batch, warmup=warmup)
        with console.status(f"window {window}"):
            measured["window"] = measure(decoder, conditioning, steps, batch=batch, warmup=warmup)
        if json is not None:
            both = {"model": model, **{name: asdict(one) for name, one in measured.items()}}
            json.write_text(json_format.dumps(both) + "\n", encoding="utf-8")
        if plot is not None:
            from wandlib.plots.costs import compare

            compare(*measured.values(), window_size=window).savefig(plot)
    Console().print(costs(measured, decoder.config))


def ways(train: bool, system: str | None, measured_too: bool) -> list[str]:
    """Return which of ``IGNORED`` apply."""
    if train:
        return ["with --train"] if system is None else ["with --train of --system", "with --train"]
    if system is None:
        return ["without --system", "without --train"]
    return ["with --system" if measured_too else "with --system and without --measure"]


def apply_window(decoder: Any, window: int) -> None:
    """Apply the window to a decoder, or change the one that it has; InputError where it can have none."""
    from wandlib.attention.conversion import convert, set_window

    try:
        (convert if getattr(decoder.config, "wand", None) is None else set_window)(decoder, window=window)
    except ValueError as error:
        raise InputError(str(error)) from error


def fake_student(name: str, positions: int, checkpoint: Path | None = None) -> Callable[[], Any]:
    """Return what makes the decoder of that name, for a computation of its memory."""
    from transformers import AutoModelForCausalLM

    if is_system(name, checkpoint):
        decoder = system_decoder(name, positions, checkpoint)
        return partial(type(decoder), decoder.config)
    return partial(AutoModelForCausalLM.from_config, config_of(name, positions))


def config_of(name: str, positions: int) -> PreTrainedConfig:
    """Return the config of a shape of the paper, or of a folder or hub name.

    Raises
    ------
    InputError
        If there is none, or it has fewer positions.
    """
    from transformers import AutoConfig

    from wandlib.profiling.paper_systems import SHAPES

    if name[:1] in "./~" and not Path(name).expanduser().is_dir():
        raise InputError(f"no folder {name}: give a folder with a config.json, or {', '.join(SHAPES)}")
    try:
        config: PreTrainedConfig = SHAPES[name].config if name in SHAPES else AutoConfig.from_pretrained(name)
    except ValueError as error:
        raise InputError(f"{name!r} is no causal decoder of transformers: {error}") from error
    check_positions(name, config, positions)
    return config


def build(name: str, positions: int, checkpoint: Path | None = None) -> PreTrainedModel:
    """Return the decoder of that name: a system's own, or one of its shape with random weights.

    Raises
    ------
    InputError
        When there is no such model, or it has fewer positions.
    """
    from transformers import AutoModelForCausalLM

    if is_system(name, checkpoint):
        return system_decoder(name, positions, checkpoint)
    config = config_of(name, positions)  # before the weights, which may be gigabytes
    try:
        return AutoModelForCausalLM.from_config(config).eval()
    except ValueError as error:
        raise InputError(f"{name!r} is no causal decoder of transformers: {error}") from error


def is_system(name: str, checkpoint: Path | None) -> bool:
    """Return whether a system's own decoder is meant, and not a shape or a config."""
    from wandlib.profiling.paper_systems import SHAPES

    return checkpoint is not None or (name in SYSTEMS and name not in SHAPES)


def system_decoder(name: str, positions: int, checkpoint: Path | None) -> PreTrainedModel:
    """Return the language model of a system.

    Raises
    ------
    InputError
        When there is no such system, or its model has fewer positions.
    """
    system = options.load(name, checkpoint, "cpu")
    model: PreTrainedModel | None = getattr(system, "language_model", None)
    if model is None:
        raise InputError(f"{name} has no single language model to measure: name a shape or a config")
    check_positions(name, model.config, positions)
    return model


def check_positions(name: str, config: PreTrainedConfig, wanted: int) -> None:
    """Raise InputError if the model has fewer positions than ``wanted``."""
    limit = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if limit is not None and wanted > limit:
        raise InputError(f"{name!r} has {limit} positions, prompt and steps need {wanted}: lower --steps")


def costs(measured: dict[str, Profile], config: PreTrainedConfig) -> Table:
    """Return the two costs in one table, and full attention's over the window's."""
    from wandlib.profiling.estimate import attention_flops

    full, window = measured["full"], measured["window"]
    table = Table("", *measured, "full / window", box=None)

    def row(name: str, digits: int, one: float, other: float) -> None:
        table.add_row(name, f"{one:.{digits}f}", f"{other:.{digits}f}", f"{one / other:.2f}" if other else "")

    table.add_row("window, keys", "all", str(window.window), "")
    table.add_row("prompt, tokens", *[str(one.conditioning) for one in measured.values()], "")
    table.add_row("steps", *[str(len(one.milliseconds)) for one in measured.values()], "")
    table.add_row("batch", *[str(one.batch) for one in measured.values()], "")
    row("prefill, ms", 1, full.prefill_milliseconds, window.prefill_milliseconds)
    row("median step, ms", 2, full.median_milliseconds, window.median_milliseconds)
    row("late step over early step", 2, full.growth, window.growth)
    row("all steps, s", 2, sum(full.milliseconds) / 1e3, sum(window.milliseconds) / 1e3)
    row("cache at the end, MB", 2, full.cache_bytes[-1] / 1e6, window.cache_bytes[-1] / 1e6)
    row(f"{full.memory}, MB", 0, full.memory_bytes[-1] / 1e6, window.memory_bytes[-1] / 1e6)
    flops = [
        attention_flops(
            config, conditioning=one.conditioning, generated=len(one.milliseconds), window=one.window, batch=one.batch
        )
        / 1e9
        for one in measured.values()
    ]
    row("attention, GFLOPs on paper", 2, *flops)
    return table
