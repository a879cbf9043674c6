"""Train a windowed student: a transformers Trainer with a full-attention teacher.

Everything that is not distillation is transformers': optimizer, schedule, accumulation, mixed precision, several
processes (``accelerate launch``), logging, checkpoints. The defaults are the paper's (WAND, arXiv 2604.08558): one
epoch of AdamW with a peak learning rate of 1e-5, a warm-up of 3 %, a cosine down to 0. ::

    student = wandlib.convert(copy.deepcopy(teacher), window=32)
    trainer = wandlib.WandTrainer(
        model=student,
        teacher=teacher,
        args=wandlib.WandTrainingArguments("runs/student", per_device_train_batch_size=8),
        train_dataset=utterances,  # of {"input_ids": [...], "conditioning": 187}
    )
    trainer.train()
    trainer.save_model("student")  # wandlib.load("student") brings it back, window and all
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from wandlib.attention.adapters import complete_adapter
from wandlib.attention.conversion import hook_of, set_window
from wandlib.attention.models import inner_model
from wandlib.distillation.arguments import WandTrainingArguments, check_compatible, check_options, check_streams
from wandlib.distillation.checkpoints import atomic_checkpoint, check_loss, check_resumable, check_weights, own_rates
from wandlib.distillation.collator import WandCollator
from wandlib.distillation.curriculum import CurriculumCallback
from wandlib.distillation.hidden_states import head_of, logits_are_head_output, with_hidden_states
from wandlib.distillation.losses import IGNORE_INDEX, Losses
from wandlib.distillation.meter import Meter, check_countable, without_repeats
from wandlib.distillation.on_policy import sample_student
from wandlib.distillation.teacher import check_separation, is_packed, teacher_states


class WandTrainer(Trainer):
    """Train a converted student against its teacher.

    Each log line has the losses ``ce`` and ``kl`` (and ``hidden``) per counted position, in nats, ``agreement``, the
    share of positions where student and teacher have the same most likely token, and ``window`` and ``tau`` of the last
    step. On-policy steps have their own, with the prefix ``on_policy_`` (``on_policy_ce`` is the student's surprise at
    its own samples). Evaluation and every checkpoint are under the final, hard window, and the student has it after
    training, however that ends.

    Parameters
    ----------
    model
        The student, a converted model.
    args
        Training arguments; default: the paper's.
    teacher
        A second model with the same codes, under full attention here whether converted or not. None: the student
        itself, with its LoRA adapter off (peft), in half the memory. Not used where no loss needs it.
    data_collator
        Default: a :class:`~wandlib.distillation.collator.WandCollator` that pads to the right and limits utterances to
        the model's number of positions.
    kwargs
        Arguments for ``Trainer``: ``train_dataset``, ``eval_dataset``, ``optimizers``, ``callbacks``,
        ``compute_metrics``, ... As in Trainer, ``compute_loss_func`` replaces the loss: the teacher is then not used.

    Raises
    ------
    ValueError
        If student, teacher and arguments do not go together.
    """

    args: WandTrainingArguments

    def __init__(
        self,
        model: nn.Module,
        args: WandTrainingArguments | None = None,
        *,
        teacher: nn.Module | None = None,
        data_collator: Any = None,
        **kwargs: Any,
    ) -> None:
        args = WandTrainingArguments() if args is None else args
        check_options(args, kwargs)
        curriculum = args.curriculum(hook_of(model).window)
        self.distillation = args.distillation()
        self.teacher = teacher
        needs_teacher = self.distillation.needs_teacher and kwargs.get("compute_loss_func") is None
        check_compatible(model, teacher, needs_teacher)
        self.meter = Meter()
        self.wants_logits = True
        """Whether :meth:`compute_loss` makes the logits, which may be large, for ``return_outputs``."""
        self.window = curriculum.window
        config = inner_model(model).config
        text, use_cache = config.get_text_config(decoder=True), config.use_cache
        collator = WandCollator(max(text.pad_token_id or 0, 0), getattr(text, "max_position_embeddings", None))
        super().__init__(model=model, args=args, data_collator=data_collator or collator, **kwargs)
        config.use_cache = use_cache  # Trainer turns it off for good; a pass with conditioning makes no cache anyway
        self.model_accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch, here
        self._loss_shifts_labels = True
        # Before the callbacks that write the log, so that they find W and tau in it.
        self.callback_handler.callbacks.insert(0, CurriculumCallback(curriculum))
        self.student_ends_in_head = logits_are_head_output(model)
        if teacher is not None:
            teacher.to(args.device).eval()
        self.teacher_ends_in_head = self.student_ends_in_head if teacher is None else logits_are_head_output(teacher)
        self.separation_checked = False
        if args.hidden_weight > 0 and not (self.student_ends_in_head and self.teacher_ends_in_head):
            raise ValueError("hidden_weight needs models whose logits are their head's output: set it to 0")

    # ------------------------------------------------------------------------------------------------------ the losses

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute the loss of one batch; Trainer calls this.

        Raises
        ------
        FloatingPointError
            If the loss is NaN or infinite.
        """
        batch = dict(inputs)
        check_streams(self.student, batch)
        labels = batch.pop("labels")
        if self.compute_loss_func is None:
            loss, outputs = self.distil(model, batch, labels, num_items_in_batch, return_outputs and self.wants_logits)
        else:
            predicted = model(**batch)
            loss = self.compute_loss_func(predicted, labels, num_items_in_batch=num_items_in_batch)
            check_loss(loss, "of compute_loss_func", self.state.global_step, self.args)
            outputs = {"logits": predicted.logits}
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP takes the mean of the gradients, and this is a sum
        return (loss, outputs) if return_outputs else loss

    def distil(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        labels: Int[Tensor, "batch time"],
        items: Tensor | float | None,
        logits_too: bool,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the distillation loss of a batch, on-policy or not, and the student's logits if asked for."""
        distillation, prefix, counts = self.distillation, "", True
        if not model.training:
            labels, counts = without_repeats(labels, self.accelerator)
        elif self.is_on_policy_step():
            counted = int((labels[:, 1:] != IGNORE_INDEX).sum())
            batch, labels = sample_student(self.student, batch, labels)
            # There is no ground truth for its own words. The batch weighs as much as the one it replaces.
            distillation, prefix = replace(distillation, ce_weight=0.0, label_smoothing=0.0), "on_policy_"
            if items is not None:
                items = items * int((labels[:, 1:] != IGNORE_INDEX).sum()) / counted
        states, teacher_head = self.teach(batch) if distillation.needs_teacher else (None, None)
        head = head_of(self.student) if self.student_ends_in_head else None

        def use(own: Float[Tensor, "batch time features"]) -> tuple[Losses, dict[str, Tensor]]:
            losses = distillation(own, labels, states, student_head=head, teacher_head=teacher_head, items=items)
            if not logits_too:
                return losses, {}
            return losses, {"logits": own if head is None else head(own)}

        losses, outputs = use(model(**batch).logits) if head is None else with_hidden_states(model, head, batch, use)
        parts = ", ".join(f"{name} {float(total) / losses.positions:g}" for name, total in losses.sums.items())
        check_loss(losses.loss, parts, self.state.global_step, self.args)
        if counts:
            self.meter.add(losses, prefix)
        return losses.loss, outputs

    def teach(self, batch: Mapping[str, Tensor]) -> tuple[Float[Tensor, "batch time features"], nn.Module | None]:
        """Return the input of the teacher's head under full attention, and the head; or its logits, and None.

        Raises
        ------
        ValueError
            If rows hold several utterances that the teacher cannot keep apart.
        """
        teacher: Any = self.student if self.teacher is None else self.teacher
        adapter_off = teacher.disable_adapter() if self.teacher is None else nullcontext()
        with self.accelerator.autocast(), adapter_off:
            if not self.separation_checked and is_packed(batch):
                check_separation(teacher)
                self.separation_checked = True
            return teacher_states(teacher, batch, ends_in_head=self.teacher_ends_in_head)

    @property
    def student(self) -> Any:
        """The converted model, without what distributed training wrapped around it."""
        return self.accelerator.unwrap_model(self.model)

    def is_on_policy_step(self) -> bool:
        """Return whether this step learns from the student's own samples: the same in every process and on resuming."""
        return random.Random(f"{self.args.seed} {self.state.global_step}").random() < self.args.on_policy

    # -------------------------------------------------------------------------------- evaluation, log, checkpoints

    @contextmanager
    def inference_window(self) -> Iterator[None]:
        """Put the student under the final, hard window, as it is used after training, until the block ends."""
        hook = hook_of(self.student)
        window, tau = hook.window, hook.tau
        set_window(self.student, window=self.window, tau=math.inf)
        try:
            yield
        finally:
            set_window(self.student, window=window, tau=tau)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate under the final window; the losses are means over the counted positions of the whole set."""
        check_countable(getattr(dataloader, "dataset", None), self.accelerator.num_processes)
        outer, self.meter = self.meter, Meter()
        try:
            with self.inference_window():
                arguments = (dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
                output = super().evaluation_loop(*arguments)
            means = self.meter.means()
        finally:
            self.meter = outer
        if means:
            means["loss"] = sum(weight * means[name] for name, weight in self.distillation.weights.items() if weight)
        metrics = (output.metrics or {}) | {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        return output._replace(metrics=metrics)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Compute the loss of a batch, and its logits only where they are used."""
        self.wants_logits = not prediction_loss_only
        try:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        finally:
            self.wants_logits = True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the distillation's numbers to the log of a training step."""
        if "loss" in logs:
            logs |= self.meter.means()
            self.meter = Meter()
        super().log(logs, start_time)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, or resume from a checkpoint; True: from the last complete one in ``output_dir``.

        Raises
        ------
        ValueError
            If there is no checkpoint, or the one named is incomplete.
        """
        if resume_from_checkpoint:
            resume_from_checkpoint = check_resumable(str(self.args.output_dir), resume_from_checkpoint)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with own_rates(self.optimizer, self.lr_scheduler):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self.meter = Meter()  # auto_find_batch_size starts again from here
        try:
            return super()._inner_training_loop(*args, **kwargs)
        finally:  # no callback is called where the run is interrupted, or fails
            set_window(self.student, window=self.window, tau=math.inf)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the student, with the window of inference in its config."""
        with self.inference_window():
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save and hasattr(self.student, "disable_adapter"):
            complete_adapter(self.student, output_dir or str(self.args.output_dir), state_dict)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        check_weights(self.student, self.state.global_step, str(self.args.output_dir))
        with atomic_checkpoint(self._get_output_dir(trial), self.state.global_step, self.args.should_save):
            super()._save_checkpoint(model, trial)
