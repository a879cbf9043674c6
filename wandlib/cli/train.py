"""``wandlib train``: from a pretrained decoder and a file of utterances to a student with a window."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from wandlib.cli.options import Config, console, exit_on_input_error
from wandlib.systems import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from wandlib.distillation.trainer import WandTrainer

REPORTED = ("ce", "kl", "agreement")
"""What is told at the end, of the log."""


def train(
    data: Annotated[
        Path,
        typer.Argument(
            help="A .jsonl file, an utterance a line: input_ids, all its tokens; conditioning, how many of them come "
            "before the generated ones, or a true or false for each; labels, where not every generated token counts."
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Folder or hub name of the causal decoder that gets the window.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for student, checkpoints, log.")],
    teacher: Annotated[
        str | None, typer.Option(help="Folder or hub name of a model with the same codes; default: the model itself.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="A file like DATA, measured at every checkpoint and at the end.")
    ] = None,
    window: Annotated[
        int, typer.Option("--window", "-w", min=1, help="Generated keys a step sees. 32 for 25 tokens a second.")
    ] = 32,
    lora: Annotated[
        int | None,
        typer.Option(min=1, help="Train adapters of this rank; the model with them off is the teacher, not a copy."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output folder.")] = (
        False
    ),
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Utterances at once.")] = 8,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches for each step of the optimiser.")] = 1,
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
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16; weights stay in float32.")] = False,
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
        check_output(output, resume)

        import torch
        from transformers import AutoConfig, set_seed

        from wandlib.cli.dataset import Utterances
        from wandlib.distillation.trainer import WandTrainer, WandTrainingArguments

        with as_input_error(ValueError):
            limits = loaded(AutoConfig, model).get_text_config(decoder=True)
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
            trainer = WandTrainer(
                model=build_student(model, window, lora),
                teacher=load_decoder(teacher or model) if kl_weight > 0 and lora is None else None,
                args=arguments,
                train_dataset=utterances,
                eval_dataset=validated,
            )
        with as_input_error(FloatingPointError, torch.OutOfMemoryError):
            run(trainer, resume)
            results = last_results(trainer) if validation is None else trainer.evaluate()
        save(trainer, output)
    Console().print(summary(trainer, results))
    console.print(f"saved: wandlib.load({str(output)!r}) brings it back, window and all", highlight=False, markup=False)
    console.print(f"its log: tensorboard --logdir {output}", highlight=False, markup=False)


@contextmanager
def as_input_error(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of the library that a user can mend into InputErrors."""
    try:
        yield
    except kinds as error:
        memory = isinstance(error, RuntimeError)
        cure = ": lower --batch-size and raise --accumulate as much, or try --bf16 or --lora" if memory else ""
        raise InputError(f"{error}{cure}") from error


def check_output(output: Path, resume: bool) -> None:
    """Raise InputError unless this run may write there: nothing is written over, and only a checkpoint goes on."""
    from wandlib.distillation.checkpoints import check_resumable, last_checkpoint

    if resume:
        with as_input_error(ValueError):
            check_resumable(output, True)
    elif (held := last_checkpoint(output)) is not None:
        raise InputError(f"there is {str(held)!r} of an earlier run: go on with --resume, or name another --output")
    elif (output / "config.json").exists():
        raise InputError(f"{str(output)!r} holds a model, which would be written over: name another --output")
    elif output.exists() and not output.is_dir():
        raise InputError(f"--output {str(output)!r} is a file: name a folder")


def loaded(kind: Any, name: str, **options: Any) -> Any:
    """Return what is stored under a name; InputError if that cannot be read."""
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load {name!r}: {error}") from error


def load_decoder(name: str) -> PreTrainedModel:
    """Return the decoder of that name, in float32: in 16 bits, steps as small as these would be rounded away."""
    import torch
    from transformers import AutoModelForCausalLM

    decoder: PreTrainedModel = loaded(AutoModelForCausalLM, name, dtype=torch.float32, use_safetensors=True)
    return decoder


def build_student(name: str, window: int, rank: int | None) -> Any:
    """Return the decoder of that name with the window, and with adapters of ``rank`` around it."""
    from wandlib.attention.conversion import convert

    student = convert(load_decoder(name), window=window)
    if rank is None:
        return student
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return get_peft_model(student, adapters)


def run(trainer: WandTrainer, resume: bool) -> None:
    """Train to the end, or until Ctrl-C: the step under way is finished and kept as a checkpoint.

    Raises
    ------
    typer.Exit
        After Ctrl-C, once it is said how to go on.
    """
    from transformers import TrainerCallback

    from wandlib.distillation.checkpoints import last_checkpoint

    asked = False

    class StopAfterStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if asked:
                control.should_save = control.should_training_stop = True

    def ask(*_: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)
        console.print("stopping after this step; Ctrl-C again stops at once", highlight=False)

    trainer.add_callback(StopAfterStep())
    # Several processes would stop at different steps, and wait for each other: there Ctrl-C stops at once.
    before = signal.getsignal(signal.SIGINT)
    if trainer.args.world_size == 1:
        signal.signal(signal.SIGINT, ask)
    try:
        trainer.train(resume_from_checkpoint=resume)
    except KeyboardInterrupt:
        asked = True
    finally:
        signal.signal(signal.SIGINT, before)
    if not asked or trainer.state.global_step == trainer.state.max_steps:
        return
    kept = last_checkpoint(str(trainer.args.output_dir))
    cure = "there is no checkpoint yet" if kept is None else f"to go on from {kept}, add --resume to the same command"
    done = f"stopped after step {trainer.state.global_step} of {trainer.state.max_steps}"
    console.print(f"{done}; {cure}", highlight=False, markup=False)
    raise typer.Exit(128 + signal.SIGINT)


def save(trainer: WandTrainer, output: Path) -> None:
    """Write the student as one model, adapters merged into it."""
    if hasattr(trainer.student, "merge_and_unload"):
        with trainer.inference_window():
            merged = trainer.student.merge_and_unload()
            if trainer.is_world_process_zero():
                merged.save_pretrained(output)
    else:
        trainer.save_model(str(output))


def last_results(trainer: WandTrainer) -> dict[str, float]:
    """Return the last losses in the log."""
    return next((line for line in reversed(trainer.state.log_history) if "ce" in line), {})


def summary(trainer: WandTrainer, results: dict[str, float]) -> Table:
    """Return what was trained, and how well it does."""
    table = Table(box=None, show_header=False)
    table.add_row("window, keys", str(trainer.window))
    table.add_row("steps", str(trainer.state.global_step))
    for name in REPORTED:
        for key in (name, f"eval_{name}"):
            if key in results:
                table.add_row(key.replace("eval_", "validation "), f"{results[key]:.4f}")
    return table
