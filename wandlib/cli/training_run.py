"""A training run of ``wandlib train``: teacher and student, Ctrl-C, what is saved and told in the end."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from wandlib.cli.options import console
from wandlib.systems import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from wandlib.distillation.trainer import WandTrainer
    from wandlib.systems.training import SystemTraining

REPORTED = ("ce", "kl", "agreement")
"""What is told at the end, of the log."""


class Source:
    """Where student and teacher come from: a model of transformers, or a system's checkpoint.

    Parameters
    ----------
    model
        Folder or hub name.
    system, checkpoint
        In its place.

    Raises
    ------
    InputError
        Unless it is one of the two.
    """

    def __init__(self, model: str | None, system: str | None, checkpoint: Path | None) -> None:
        if (model is None) == (system is None) or (system is None) != (checkpoint is None):
            raise InputError("give --model, or --system with the --checkpoint of one")
        from wandlib.systems.registry import training_of

        self.model, self.checkpoint = model, checkpoint
        self.training: SystemTraining | None = None if system is None else training_of(system)

    @property
    def window(self) -> int:
        """Generated keys that a student sees, unless asked otherwise."""
        return 32 if self.training is None else self.training.window

    def config(self) -> PreTrainedConfig:
        """Return the decoder's config, before its weights, which may be gigabytes."""
        from transformers import AutoConfig

        if self.training is not None and self.checkpoint is not None:
            return self.training.config(self.checkpoint)
        config: PreTrainedConfig = loaded(AutoConfig, str(self.model)).get_text_config(decoder=True)
        return config

    def load(self) -> PreTrainedModel:
        """Return the decoder, in float32."""
        if self.training is not None and self.checkpoint is not None:
            return self.training.language_model(self.checkpoint)
        return load_decoder(str(self.model))

    def note(self, data: Path, settings: dict[str, Any], output: Path) -> None:
        """Write a card and a note of what a student was made of, where a system is trained."""
        if self.training is None or self.checkpoint is None:
            return
        from wandlib.systems.model_card import write_model_card
        from wandlib.systems.training import NOTE

        note = {
            "system": self.training.base.system,
            "checkpoint": str(self.checkpoint.resolve()),
            "data": str(data.resolve()),
            "settings": settings,
        }
        (output / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        told = ", ".join(f"{name} {value}" for name, value in settings.items())
        credit = "name it, its authors and its license here."
        made_of = {"window": settings["window"], "files": self.training.files}
        write_model_card(
            output, self.training.base, data=data.name, data_credit=credit, settings=f"wandlib train: {told}", **made_of
        )


def mixed_precision(asked: bool | None, source: Source, cpu: bool) -> bool:
    """Return whether to compute in bfloat16: as asked; else for a system, where the GPU does it by itself."""
    if asked is not None:
        return asked
    import torch

    return source.training is not None and not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(False)


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


def check_numbers(zero: bool, **options: float) -> None:
    """Raise InputError unless these options are finite numbers above 0, or also 0 where ``zero`` is one."""
    for name, value in options.items():
        if not 0 <= value < math.inf or (value == 0 and not zero):
            least = "from 0" if zero else "above 0"
            raise InputError(f"--{name.replace('_', '-')} is a finite number {least}, not {value:g}")


def check_checkpoint(trainer: WandTrainer) -> None:
    """Raise InputError unless the weights of the last checkpoint are those of this student, which is trained on."""
    from safetensors import safe_open

    from wandlib.distillation.checkpoints import check_resumable

    checkpoint = Path(check_resumable(str(trainer.args.output_dir), True))
    own = {name.replace(".default.", "."): weight for name, weight in trainer.student.state_dict().items()}  # as saved
    held: dict[str, list[int]] = {}
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, "pt") as stored:
            held |= {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
    shared = own.keys() & held.keys()
    if held and (not shared or any(list(own[name].shape) != held[name] for name in shared)):
        raise InputError(
            f"{checkpoint} is of another model, or of other adapters: go on with the --model or --system and the "
            "--lora that it was begun with, or name another --output"
        )


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


def build_student(source: Source, window: int, rank: int | None) -> Any:
    """Return a decoder with the window, and with adapters of ``rank`` around it."""
    from wandlib.attention.conversion import convert

    student = convert(source.load(), window=window)
    return student if rank is None else with_adapters(student, rank)


def with_adapters(student: Any, rank: int) -> Any:
    """Return a model with adapters of ``rank`` around its layers, but around nothing that is frozen."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    frozen = [name.removesuffix(".weight") for name, weight in student.named_parameters() if not weight.requires_grad]
    adapters = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        exclude_modules=frozen or None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in student.modules()),
    )
    return get_peft_model(student, adapters)


def run(trainer: WandTrainer, resume: bool) -> None:
    """Train to the end, or until Ctrl-C: the step under way is finished and kept as a checkpoint.

    Raises
    ------
    InputError
        If the checkpoint that it goes on from is at the end already.
    typer.Exit
        After Ctrl-C, once it is said how to go on.
    """
    from transformers import TrainerCallback

    from wandlib.distillation.checkpoints import last_checkpoint

    asked = False

    class Ending(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step >= state.max_steps:  # transformers would train one more
                raise InputError(
                    f"nothing is left to train: {state.global_step} of {state.max_steps} steps are done; raise --steps "
                    f"or --epochs, or take the student from {last_checkpoint(args.output_dir)}"
                )

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == state.max_steps:
                control.should_log = True  # the losses that are told in the end
            if asked:
                control.should_save = control.should_training_stop = True

    def ask(*_: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)
        console.print("stopping after this step; Ctrl-C again stops at once", highlight=False)

    trainer.add_callback(Ending())
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
    """Return the last losses in the log, of the data and of the student's own samples."""
    lines = [line for line in trainer.state.log_history if "loss" in line]  # no evaluation of an earlier run
    return {name: value for line in lines for name, value in line.items()}


def summary(trainer: WandTrainer, results: dict[str, float]) -> Table:
    """Return what was trained, and how well it does."""
    table = Table(box=None, show_header=False)
    table.add_row("window, keys", str(trainer.window))
    table.add_row("steps", str(trainer.state.global_step))
    for name in REPORTED:
        for told, key in (
            (name, name),
            (f"on-policy {name}", f"on_policy_{name}"),
            (f"validation {name}", f"eval_{name}"),
        ):
            if key in results:
                table.add_row(told, f"{results[key]:.4f}")
    return table
