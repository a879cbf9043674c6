"""``wandlib train``: from a pretrained decoder and a file of utterances to a student with a window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from wandlib.cli.options import Config, TrainedSystem, console, exit_on_input_error
from wandlib.cli.training_run import (
    Source,
    as_input_error,
    build_student,
    check_checkpoint,
    check_numbers,
    check_output,
    last_results,
    load_decoder,
    mixed_precision,
    run,
    save,
    summary,
)
from wandlib.systems import InputError


def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for student, checkpoints, log.")],
    argument: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A folder that wandlib prepare wrote, or a .jsonl file, an utterance a line: input_ids, all its "
            "tokens; conditioning, how many of them come before the generated ones, or a true or false for each; "
            "labels, where not every generated token counts.",
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The same as DATA.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Folder or hub name of the causal decoder that gets the window."),
    ] = None,
    system: TrainedSystem = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder of the system's checkpoint, as published.")] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Folder or hub name of a model with the same codes; default: the model itself.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="A file like DATA, measured at every checkpoint and at the end.")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option("--window", "-w", min=1, help="Generated keys a step sees; default: the system's, else 32."),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(min=1, help="Train adapters of this rank; the model with them off is the teacher, not a copy."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output folder.")] = (
        False
    ),
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Utterances at once.")] = 8,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches for each step of the optimizer.")] = 1,
    epochs: Annotated[float, typer.Option(help="Passes over the data.")] = 1.0,
    steps: Annotated[int | None, typer.Option("--steps", "-n", min=1, help="Steps, in place of --epochs.")] = None,
    learning_rate: Annotated[float, typer.Option(help="Its peak; a cosine takes it down to 0.")] = 1e-5,
    warmup: Annotated[float, typer.Option(min=0, help="Steps of warm-up; below 1: as a part of the run.")] = 0.03,
    window_start: Annotated[int, typer.Option(min=1, help="Window at the first step.")] = 128,
    tau_start: Annotated[float, typer.Option(help="Strength of the soft mask at the first step.")] = 0.1,
    tau_end: Annotated[float, typer.Option(help="Strength of the soft mask before it becomes hard.")] = 10.0,
    hard_fraction: Annotated[float, typer.Option(help="Part of the steps, at the end, under the hard mask.")] = 0.1,
    schedule: Annotated[
        Literal["cosine", "linear", "direct"], typer.Option(help="direct: the hard window from the start.")
    ] = "cosine",
    ce_weight: Annotated[float, typer.Option(min=0, help="Of the cross-entropy on the data.")] = 1.0,
    kl_weight: Annotated[float, typer.Option(min=0, help="Of the divergence from the teacher.")] = 1.0,
    divergence: Annotated[
        str, typer.Option(help="Divergence from the teacher: skew, reverse or jensen-shannon.")
    ] = "skew",
    alpha: Annotated[float, typer.Option(help="Of the skew divergence.")] = 0.1,
    on_policy: Annotated[float, typer.Option(help="Share of the steps on the student's own samples.")] = 0.0,
    bf16: Annotated[
        bool | None,
        typer.Option(
            "--bf16/--no-bf16",
            help="Compute in bfloat16; weights stay in float32. Default: with --system, where the GPU has it.",
        ),
    ] = None,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints; the last two are kept.")] = 500,
    log_steps: Annotated[int, typer.Option(min=1, help="Steps between lines of the log.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the order of the data and of everything random.")] = 42,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave the GPU alone.")] = False,
    config: Config = None,
) -> None:
    """Train a student that sees WINDOW generated keys to speak like its full-attention teacher. Ctrl-C is safe."""
    with exit_on_input_error():
        if lora is not None and teacher is not None:
            raise InputError("--lora makes the model its own teacher: leave out --lora or --teacher")
        if kl_weight == 0 and teacher is not None:
            raise InputError("--kl-weight 0 asks no teacher: leave out --kl-weight or --teacher")
        check_numbers(False, epochs=epochs, learning_rate=learning_rate)
        check_numbers(True, warmup=warmup, ce_weight=ce_weight, kl_weight=kl_weight)
        source = Source(model, system, checkpoint)
        if (argument is None) == (data is None):
            raise InputError("nothing to train on: give DATA, a folder that wandlib prepare wrote or a .jsonl file")
        check_output(output, resume)

        import torch
        from transformers import set_seed

        from wandlib.cli.dataset import Utterances
        from wandlib.distillation.trainer import WandTrainer, WandTrainingArguments
        from wandlib.systems.preparation import training_set

        data = training_set(argument or data or Path())
        window, bf16 = window or source.window, mixed_precision(bf16, source, cpu)
        with as_input_error(ValueError):
            limits = source.config()
            utterances = Utterances(data, limits)  # before the weights, which may be gigabytes
            validated = None if validation is None else Utterances(validation, limits)
            set_seed(seed)  # adapters start at random
            arguments = WandTrainingArguments(
                str(output),
                per_device_train_batch_size=batch_size,
                per_device_eval_batch_size=batch_size,
                gradient_accumulation_steps=accumulate,
                num_train_epochs=epochs,
                max_steps=steps or -1,
                learning_rate=learning_rate,
                warmup_steps=warmup,
                window_start=window_start,
                tau_start=tau_start,
                tau_end=tau_end,
                hard_fraction=hard_fraction,
                schedule=schedule,
                ce_weight=ce_weight,
                kl_weight=kl_weight,
                divergence=divergence,
                alpha=alpha,
                on_policy=on_policy,
                bf16=bf16,
                save_steps=save_steps,
                save_total_limit=2,
                eval_strategy="no" if validation is None else "steps",
                eval_steps=save_steps,
                logging_steps=log_steps,
                report_to="tensorboard",
                seed=seed,
                use_cpu=cpu,
            )
            taught: Any = None
            if kl_weight > 0 and lora is None:
                taught = source.load() if teacher is None else load_decoder(teacher)
                taught.requires_grad_(False)  # or autocast would keep a copy of every weight
            trainer = WandTrainer(
                model=build_student(source, window, lora),
                teacher=taught,
                args=arguments,
                train_dataset=utterances,
                eval_dataset=validated,
            )
        if resume:
            check_checkpoint(trainer)
        with as_input_error(FloatingPointError, torch.OutOfMemoryError):
            run(trainer, resume)
            results = last_results(trainer) if validation is None else trainer.evaluate()
        save(trainer, output)
        if trainer.is_world_process_zero():
            steps_done = {"window": window, "steps": trainer.state.global_step, "learning rate": learning_rate}
            batches = {"batch": batch_size * accumulate * trainer.args.world_size, "lora": lora, "bf16": bf16}
            source.note(data, steps_done | batches, output)
    Console().print(summary(trainer, results))
    console.print(f"saved: wandlib.load({str(output)!r}) brings it back, window and all", highlight=False, markup=False)
    console.print(f"its log: tensorboard --logdir {output}", highlight=False, markup=False)
