"""What a windowed student learns from: the ground truth, and the distribution of its full-attention teacher.

    L = ce_weight L_CE + kl_weight L_KL + hidden_weight L_hidden

L_CE is the cross-entropy on the ground-truth acoustic tokens, L_KL one of :mod:`wandlib.distillation.divergences`
(WAND, arXiv 2604.08558: skew KL), L_hidden the distance between the last hidden states.

Only generated positions count. Their logits are computed from the hidden states one chunk of positions at a time, and
recomputed in the backward pass, so that neither model's [batch, time, vocabulary] ever exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from wandlib.distillation.divergences import DIVERGENCES, check_divergence, check_vocabularies, log_probabilities

IGNORE_INDEX = -100
"""The label of a position that does not count, as everywhere in transformers."""
ROWS = 64
"""The last chunk is filled up to a multiple of this: matrix kernels are built and cached for each shape they meet."""


class Losses(NamedTuple):
    """What :class:`DistillationLoss` returns: the loss, and sums over the counted positions for the log."""

    loss: Float[Tensor, ""]
    """Loss to minimize: mean over the counted positions, or their sum divided by ``items``."""
    sums: dict[str, Float[Tensor, ""]]
    """Sums of "ce", "kl", "hidden", "agreement" (student and teacher have the same most likely token), as far as they
    were computed; without gradient."""
    positions: int
    """Number of counted positions."""


@dataclass(frozen=True)
class DistillationLoss:
    """Cross-entropy on the ground truth plus the divergence from the teacher, over generated positions only.

    Parameters
    ----------
    ce_weight, kl_weight
        Weights of the two terms. The paper gives none; they are 1 and 1 here.
    alpha, divergence
        Divergence from the teacher and its skew, as for :func:`wandlib.distillation.divergences.skew_kl`.
    hidden_weight
        Weight of the squared distance between the last hidden states, relative to the teacher's square; 0: none.
    chunk
        Positions whose logits exist at once: each chunk takes about ``8 x chunk x vocabulary`` numbers for a while.
    label_smoothing
        Share of the target that is spread evenly over the vocabulary, as in transformers' ``LabelSmoother``.

    Raises
    ------
    ValueError
        If a weight is negative, all are 0, or another value is outside its range.
    """

    ce_weight: float = 1.0
    kl_weight: float = 1.0
    alpha: float = 0.1
    divergence: str = "skew"
    hidden_weight: float = 0.0
    chunk: int = 512
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_divergence(self.alpha, self.divergence)
        weights = tuple(self.weights.values())
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(
                f"ce_weight, kl_weight and hidden_weight must be 0 or more, one of them above 0; got {weights}"
            )
        if self.chunk < ROWS or self.chunk % ROWS:
            raise ValueError(f"chunk is a number of positions, a multiple of {ROWS}; got {self.chunk}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is a share of the target, from 0 to below 1; got {self.label_smoothing}")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term."""
        return {"ce": self.ce_weight, "kl": self.kl_weight, "hidden": self.hidden_weight}

    @property
    def needs_teacher(self) -> bool:
        """Whether any term depends on the teacher."""
        return self.kl_weight > 0 or self.hidden_weight > 0

    def __call__(
        self,
        student: Float[Tensor, "batch time student_features"],
        labels: Int[Tensor, "batch time"],
        teacher: Float[Tensor, "batch time teacher_features"] | None = None,
        *,
        student_head: Callable[[Tensor], Tensor] | None = None,
        teacher_head: Callable[[Tensor], Tensor] | None = None,
        items: Tensor | float | None = None,
    ) -> Losses:
        """Compute the loss of a batch.

        Parameters
        ----------
        student, teacher
            Inputs of the heads: the last hidden states. Without heads: the logits themselves.
        labels
            Targets aligned with the input, -100 where a position does not count; position t - 1 predicts label t, as
            in transformers.
        student_head, teacher_head
            Functions from hidden states to logits, usually the ``lm_head``.
        items
            Number to divide the sums by instead of the counted positions: ``num_items_in_batch`` of a Trainer that
            accumulates gradients.

        Raises
        ------
        ValueError
            If no position counts, the vocabularies differ, or a teacher is needed and missing.
        """
        if self.needs_teacher and teacher is None:
            raise ValueError("kl_weight or hidden_weight is above 0, so this loss needs the teacher's hidden states")
        if not self.needs_teacher:
            teacher = None
        targets = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX).flatten()
        places = (targets != IGNORE_INDEX).nonzero().squeeze(-1)
        count = len(places)
        if count == 0:
            raise ValueError("no position counts: every label from the second on is -100")
        filled = torch.cat([places, places[:1].expand(-count % ROWS)])
        targets = F.pad(targets[places], (0, -count % ROWS), value=IGNORE_INDEX)
        student = student.flatten(0, 1)[filled]
        teacher = None if teacher is None else teacher.detach().flatten(0, 1)[filled]
        totals: dict[str, Tensor] = {}
        for start in range(0, len(filled), self.chunk):
            part = slice(start, start + self.chunk)
            taught = None if teacher is None else teacher[part]
            sums = checkpoint(
                self._chunk, student[part], targets[part], taught, student_head, teacher_head, use_reentrant=False
            )
            totals = {name: totals[name] + value if totals else value for name, value in sums.items()}
        loss = torch.stack([weight * totals[name] for name, weight in self.weights.items() if weight > 0]).sum()
        return Losses(
            loss / (count if items is None else items), {name: value.detach() for name, value in totals.items()}, count
        )

    def _chunk(
        self,
        student: Float[Tensor, "positions student_features"],
        targets: Int[Tensor, " positions"],
        teacher: Float[Tensor, "positions teacher_features"] | None,
        student_head: Callable[[Tensor], Tensor] | None,
        teacher_head: Callable[[Tensor], Tensor] | None,
    ) -> dict[str, Float[Tensor, ""]]:
        counted = targets != IGNORE_INDEX
        log_probs = log_probabilities(student if student_head is None else student_head(student))
        sums = {"ce": self._cross_entropy(log_probs, targets, counted)}
        if teacher is None:
            return sums
        with torch.no_grad():
            teacher_log_probs = log_probabilities(teacher if teacher_head is None else teacher_head(teacher))
        check_vocabularies(teacher_log_probs.shape[-1], log_probs.shape[-1])
        sums["agreement"] = ((log_probs.argmax(-1) == teacher_log_probs.argmax(-1)) & counted).sum().to(log_probs.dtype)
        if self.kl_weight > 0:
            divergences = DIVERGENCES[self.divergence](teacher_log_probs, log_probs, self.alpha)
            sums["kl"] = (divergences * counted).sum()
        if self.hidden_weight > 0:
            if student.shape != teacher.shape:
                raise ValueError(
                    f"hidden_weight compares hidden states of one width; the student's are {student.shape[-1]} wide "
                    f"and the teacher's {teacher.shape[-1]}: set it to 0"
                )
            teacher = teacher.to(log_probs.dtype)
            distance = (student - teacher).square().mean(-1) / teacher.square().mean(-1)
            sums["hidden"] = (distance * counted).sum()
        return sums

    def _cross_entropy(
        self,
        log_probs: Float[Tensor, "positions vocabulary"],
        targets: Int[Tensor, " positions"],
        counted: Bool[Tensor, " positions"],
    ) -> Float[Tensor, ""]:
        hard = F.nll_loss(log_probs, targets, ignore_index=IGNORE_INDEX, reduction="sum")
        if self.label_smoothing == 0:
            return hard
        even = -(log_probs.mean(-1) * counted).sum()
        return (1 - self.label_smoothing) * hard + self.label_smoothing * even
