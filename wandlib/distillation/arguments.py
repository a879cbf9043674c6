"""Training arguments of distillation, and which options, students and teachers go together.

Options of transformers' ``TrainingArguments`` and ``Trainer`` are obeyed, or refused here with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import TrainingArguments

from wandlib.attention.adapters import trained_base_weights
from wandlib.attention.conversion import hook_of
from wandlib.attention.models import inner_model
from wandlib.distillation.curriculum import WindowCurriculum
from wandlib.distillation.divergences import check_vocabularies
from wandlib.distillation.hidden_states import head_of
from wandlib.distillation.losses import DistillationLoss

REWRITING = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""How the names of peft's ``init_lora_weights`` begin that change the base model."""


@dataclass
class WandTrainingArguments(TrainingArguments):
    """transformers' ``TrainingArguments`` with the paper's defaults, and the arguments of distillation.

    Parameters
    ----------
    window
        Final window W, in generated keys; default: the window that the student was converted with.
    window_start, tau_start, tau_end, hard_fraction, schedule
        Parameters of the :class:`~wandlib.distillation.curriculum.WindowCurriculum`, which spans the run.
    ce_weight, kl_weight, alpha, divergence, hidden_weight, chunk
        Parameters of the :class:`~wandlib.distillation.losses.DistillationLoss`; ``label_smoothing_factor`` belongs to
        its cross-entropy.
    on_policy
        Share of the steps on the student's own samples, scored by the teacher, instead of the dataset's.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the data."})
    lr_scheduler_type: Any = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Warm-up in steps; below 1: share of the run."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between log lines."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off: conditioning is no column."})
    label_names: list[str] | None = field(default_factory=lambda: ["labels"], metadata={"help": "Name of the targets."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Look for unused weights (DDP)."})
    window: int | None = field(default=None, metadata={"help": "Final window W; default: the student's."})
    window_start: int = field(default=128, metadata={"help": "Window at the first step."})
    tau_start: float = field(default=0.1, metadata={"help": "Strength of the soft mask at the first step."})
    tau_end: float = field(default=10.0, metadata={"help": "Strength of the soft mask before it becomes hard."})
    hard_fraction: float = field(default=0.1, metadata={"help": "Final share of the steps, under the hard mask."})
    schedule: str = field(default="cosine", metadata={"help": "cosine, linear, or direct: hard from the start."})
    ce_weight: float = field(default=1.0, metadata={"help": "Weight of the cross-entropy on the ground truth."})
    kl_weight: float = field(default=1.0, metadata={"help": "Weight of the divergence from the teacher."})
    alpha: float = field(default=0.1, metadata={"help": "Skew of the divergence."})
    divergence: str = field(default="skew", metadata={"help": "skew, reverse, or jensen-shannon."})
    hidden_weight: float = field(default=0.0, metadata={"help": "Weight of the distance of the last hidden states."})
    on_policy: float = field(default=0.0, metadata={"help": "Share of the steps on the student's own samples."})
    chunk: int = field(default=512, metadata={"help": "Positions whose logits exist at once."})

    def curriculum(self, window: int) -> WindowCurriculum:
        """Return the curriculum of these arguments, for a student with this window."""
        return WindowCurriculum(
            window_start=self.window_start,
            window=window if self.window is None else self.window,
            tau_start=self.tau_start,
            tau_end=self.tau_end,
            hard_fraction=self.hard_fraction,
            schedule=self.schedule,
        )

    def distillation(self) -> DistillationLoss:
        """Return the loss of these arguments."""
        return DistillationLoss(
            ce_weight=self.ce_weight,
            kl_weight=self.kl_weight,
            alpha=self.alpha,
            divergence=self.divergence,
            hidden_weight=self.hidden_weight,
            chunk=self.chunk,
            label_smoothing=self.label_smoothing_factor,
        )


def check_options(args: WandTrainingArguments, options: Mapping[str, Any]) -> None:
    """Raise ValueError where an option has no meaning in distillation, or contradicts another one.

    Parameters
    ----------
    args
        The training arguments.
    options
        Other keyword arguments of the Trainer.
    """
    if not isinstance(args, WandTrainingArguments):
        raise TypeError(f"args are WandTrainingArguments, which extend transformers'; got {type(args).__name__}")
    parallel = getattr(args, "parallelism_config", None)
    splits = any(getattr(parallel, f"{kind}_size", 1) > 1 for kind in ("tp", "cp", "sp"))
    own_loss = options.get("compute_loss_func") is not None
    smooth = args.label_smoothing_factor != 0
    refused = [
        (
            args.n_gpu > 1,
            f"this process sees {args.n_gpu} GPUs, and distillation runs one process for each: start it with "
            "`accelerate launch`, or set CUDA_VISIBLE_DEVICES to one of them",
        ),
        (
            splits,
            "parallelism_config splits one utterance or one weight between processes, and WandTrainer only splits "
            "batches: use DDP or FSDP",
        ),
        (
            args.remove_unused_columns,
            "remove_unused_columns removes conditioning, which is no argument of the model's forward: leave it off, "
            "and remove other columns from the dataset",
        ),
        (
            args.label_names not in (None, ["labels"]),
            f"label_names is {args.label_names}, and the targets must be called labels: rename them in the data "
            "collator",
        ),
        (
            args.use_liger_kernel,
            "use_liger_kernel replaces the model's forward to fuse the loss of the model itself, which distillation "
            "does not use: leave it off (the losses here never hold all logits either)",
        ),
        (
            options.get("model_init") is not None,
            "model_init makes a new model for every trial, and a student must be converted before: build a "
            "WandTrainer for each trial",
        ),
        (
            args.prediction_loss_only and options.get("compute_metrics") is not None,
            "prediction_loss_only makes no logits, and compute_metrics needs them: leave out one of them",
        ),
        (
            smooth and own_loss,
            "compute_loss_func replaces the cross-entropy that label_smoothing_factor belongs to: leave out one of "
            "them",
        ),
        (
            smooth and args.ce_weight == 0,
            "label_smoothing_factor belongs to the cross-entropy, and ce_weight is 0: leave out one of them",
        ),
        (
            not 0 <= args.on_policy <= 1,
            f"on_policy is a share of the steps, from 0 to 1; got {args.on_policy}",
        ),
        (
            args.on_policy > 0 and (args.kl_weight == 0 or own_loss),
            f"on_policy is {args.on_policy}, and its samples are for the teacher to score: set kl_weight, and leave "
            "out compute_loss_func",
        ),
    ]
    for applies, reason in refused:
        if applies:
            raise ValueError(reason)


def check_streams(student: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a batch of streams is not for this student: it would learn another rule than it speaks by."""
    hook, block = hook_of(student), batch.get("block")
    if block is None:
        return
    if hook.blocks is None:
        raise ValueError(
            "the batch has text blocks, and the student was converted without, so that none would expire: "
            "wandlib.convert(student, window=..., blocks=2, pinned=...); to keep all, give a number beyond reach"
        )
    pinned = set((batch["conditioning"] & (block == 0)).sum(1).tolist())
    if pinned != {hook.pinned}:
        raise ValueError(
            f"the rows of the batch pin {sorted(pinned)} tokens, and the student was converted with "
            f"pinned={hook.pinned}: make them the same number"
        )


def check_compatible(student: nn.Module, teacher: nn.Module | None, needs_teacher: bool) -> None:
    """Raise ValueError unless this student can learn from this teacher."""
    head = head_of(student)
    configs: Any = getattr(student, "peft_config", {})
    adapters, config = list(configs), configs.get("default")
    if adapters not in ([], ["default"]):
        raise ValueError(
            f"the student has the adapters {', '.join(adapters)}, and only one is saved so that wandlib.load finds it: "
            "keep one, with the name 'default'"
        )
    if not needs_teacher:
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
    elif trained := trained_base_weights(student):
        raise ValueError(
            f"a student that is its own teacher must keep the base model's weights, and {len(trained)} of them are "
            f"trained, among them {trained[0]}: freeze them (requires_grad_(False), and bias='none' in the adapter's "
            "config), or pass a second model as teacher"
        )
    elif (begun := str(getattr(config, "init_lora_weights", None))).startswith(REWRITING):
        raise ValueError(
            f"init_lora_weights={begun!r} takes a part of the base model's weights into the adapter, and what is left "
            "is no teacher: pass a second model as teacher, or begin with True or 'gaussian'"
        )
