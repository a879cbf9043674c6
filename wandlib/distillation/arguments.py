"""What distillation adds to transformers' ``TrainingArguments``, and which models go together with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from torch import nn
from transformers import TrainingArguments

from wandlib.attention.conversion import inner_model
from wandlib.distillation.divergences import check_vocabularies
from wandlib.distillation.hidden_states import head_of
from wandlib.distillation.losses import DistillationLoss

if find_spec("accelerate") is None:
    raise ImportError("training needs accelerate, which is not installed: pip install 'wandlib[train]'")


@dataclass
class WandTrainingArguments(TrainingArguments):
    """What transformers' ``TrainingArguments`` say, with the paper's defaults, and what distillation adds.

    Parameters
    ----------
    window
        W in the end; default: the window that the student was converted with.
    window_start, tau_start, tau_end, hard_fraction, schedule
        Parameters of the :class:`~wandlib.distillation.curriculum.WindowCurriculum`, which spans the run.
    ce_weight, kl_weight, alpha, divergence, hidden_weight, chunk
        Parameters of the :class:`~wandlib.distillation.losses.DistillationLoss`.
    on_policy
        Share of the steps on the student's own samples, scored by the teacher, instead of the dataset's.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the data."})
    lr_scheduler_type: Any = field(default="cosine", metadata={"help": "Course of the learning rate."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Warm-up in steps; below 1: as a part of the run."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between log lines."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off: conditioning is no column."})
    label_names: list[str] | None = field(default_factory=lambda: ["labels"], metadata={"help": "Of the targets."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Look for unused weights (DDP)."})
    window: int | None = field(default=None, metadata={"help": "W in the end; default: the student's."})
    window_start: int = field(default=128, metadata={"help": "W at the first step."})
    tau_start: float = field(default=0.1, metadata={"help": "Strength of the soft mask at the first step."})
    tau_end: float = field(default=10.0, metadata={"help": "Strength of the soft mask before it becomes hard."})
    hard_fraction: float = field(default=0.1, metadata={"help": "Part of the steps, at the end, under the hard mask."})
    schedule: str = field(default="cosine", metadata={"help": "cosine, linear, or direct: hard from the start."})
    ce_weight: float = field(default=1.0, metadata={"help": "Weight of the cross-entropy on the ground truth."})
    kl_weight: float = field(default=1.0, metadata={"help": "Weight of the divergence from the teacher."})
    alpha: float = field(default=0.1, metadata={"help": "Of the skew divergence."})
    divergence: str = field(default="skew", metadata={"help": "skew, reverse, or jensen-shannon."})
    hidden_weight: float = field(default=0.0, metadata={"help": "Weight of the distance of the last hidden states."})
    on_policy: float = field(default=0.0, metadata={"help": "Share of the steps on the student's own samples."})
    chunk: int = field(default=512, metadata={"help": "Positions whose logits live at once."})


def check_compatible(
    student: nn.Module, teacher: nn.Module | None, distillation: DistillationLoss, args: WandTrainingArguments
) -> None:
    """Raise ValueError unless this student can learn from this teacher with these arguments."""
    if args.n_gpu > 1:
        raise ValueError(
            f"this process sees {args.n_gpu} GPUs, and distillation runs one process for each: start it with "
            "`accelerate launch`, or set CUDA_VISIBLE_DEVICES to one of them"
        )
    if not 0 <= args.on_policy <= 1:
        raise ValueError(f"on_policy is a share of the steps, from 0 to 1; got {args.on_policy}")
    if args.on_policy > 0 and args.kl_weight == 0:
        raise ValueError(f"on_policy is {args.on_policy}, and its samples are for the teacher to score: set kl_weight")
    head = head_of(student)
    if not distillation.needs_teacher:
        return
    if teacher is student:
        raise ValueError(
            "teacher is the student itself: pass a copy made before training (copy.deepcopy), or give the student a "
            "LoRA adapter and leave teacher out"
        )
    if teacher is not None:
        vocabularies = (
            inner_model(model).config.get_text_config(decoder=True).vocab_size for model in (teacher, student)
        )
        check_vocabularies(*vocabularies)
    elif not hasattr(student, "disable_adapter"):
        raise ValueError(
            "no teacher: pass teacher=<the model before conversion>, or make the student its own teacher by giving it "
            "a LoRA adapter (peft.get_peft_model), or set kl_weight=0 and hidden_weight=0"
        )
    elif any(parameter.requires_grad for parameter in head.parameters()):
        raise ValueError(
            "a student that is its own teacher must keep its output head: leave the head (and embeddings tied to it) "
            "out of target_modules and modules_to_save, or pass a second model as teacher"
        )
