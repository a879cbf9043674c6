"""What a windowed student learns from: the ground truth, and the distribution of its full-attention teacher.

    L = ce_weight L_CE + kl_weight L_KL + hidden_weight L_hidden

L_CE is the cross-entropy on the ground-truth acoustic tokens. L_KL is, with p the teacher and q the student,

    skew              KL(p || a p + (1 - a) q)                       DistiLLM, arXiv 2402.03898; WAND, arXiv 2604.08558
    reverse           KL(q || a q + (1 - a) p)                       its mirror, also DistiLLM
    jensen-shannon    (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2    GKD, arXiv 2306.13649

Only generated positions count. Their logits are made from the hidden states a chunk of positions at a time, and made
again in the backward pass, so that neither model's [batch, time, vocabulary] is ever held.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

FORMS = ("skew", "reverse", "jensen-shannon")
IGNORED = -100
"""The label of a position that does not count, as everywhere in transformers."""
ROWS = 64
"""The last chunk is filled up to a multiple of this: matrix kernels are built and kept for each shape they meet."""


class Losses(NamedTuple):
    """What :class:`DistillationLoss` returns: the loss, and sums over the counted positions for the log."""

    loss: Float[Tensor, ""]
    """To minimise; mean over the counted positions, or their sum over ``items``."""
    sums: dict[str, Float[Tensor, ""]]
    """Sums of "ce", "kl", "hidden", "agreement" (student and teacher have the same most likely token), as far as they
    were computed; without gradient."""
    positions: int
    """How many were counted."""


def skew_kl(
    teacher_logits: Float[Tensor, "*positions vocabulary"],
    student_logits: Float[Tensor, "*positions vocabulary"],
    alpha: float = 0.1,
    mask: Bool[Tensor, "*positions"] | None = None,
    form: str = "skew",
) -> Float[Tensor, ""]:
    """Divergence of the student from the teacher, in nats, mean over the counted positions.

    Parameters
    ----------
    teacher_logits, student_logits
        Before the softmax. Half precision is computed in float32.
    alpha
        How much of the first distribution is mixed into the second, from 0, which is the plain KL divergence, to below
        1. DistiLLM: 0.1. The Jensen-Shannon form has none.
    mask
        True where a position counts; default: everywhere.
    form
        See the head of this module.

    Raises
    ------
    ValueError
        If ``alpha`` or ``form`` is none of these, the vocabularies differ, or no position counts.
    """
    check_divergence(alpha, form)
    check_vocabularies(teacher_logits.shape[-1], student_logits.shape[-1])
    if mask is not None:
        teacher_logits, student_logits = teacher_logits[mask], student_logits[mask]
    if not teacher_logits.numel():  # a mean over nothing would be NaN
        raise ValueError("no position counts: the mask (or the batch) has no generated position")
    return divergence(log_probabilities(teacher_logits), log_probabilities(student_logits), alpha, form).mean()


def divergence(
    teacher: Float[Tensor, "*positions vocabulary"],
    student: Float[Tensor, "*positions vocabulary"],
    alpha: float,
    form: str,
) -> Float[Tensor, "*positions"]:
    """The divergence of :func:`skew_kl` at each position, from log-probabilities."""
    if form == "jensen-shannon":
        middle = torch.logaddexp(teacher, student) - math.log(2)
        return (kl(teacher, middle) + kl(student, middle)) / 2
    first, second = (teacher, student) if form == "skew" else (student, teacher)
    return kl(first, mixed(first, second, alpha))


def kl(
    first: Float[Tensor, "*positions vocabulary"], second: Float[Tensor, "*positions vocabulary"]
) -> Float[Tensor, "*positions"]:
    """KL(first || second), both given as log-probabilities."""
    return (first.exp() * (first - second)).sum(-1)


def mixed(
    first: Float[Tensor, "*positions vocabulary"], second: Float[Tensor, "*positions vocabulary"], alpha: float
) -> Float[Tensor, "*positions vocabulary"]:
    """The log of ``alpha first + (1 - alpha) second``, all as log-probabilities: no probability is rounded to 0."""
    if alpha == 0:
        return second
    return torch.logaddexp(first + math.log(alpha), second + math.log1p(-alpha))


def log_probabilities(logits: Float[Tensor, "*positions vocabulary"]) -> Float[Tensor, "*positions vocabulary"]:
    """Log-softmax, in float32 at least."""
    return F.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))


def check_divergence(alpha: float, form: str) -> None:
    """Raise ValueError unless the divergence is one that there is."""
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha is a share of the mixture, from 0 (plain KL) to below 1; got {alpha}")
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(map(repr, FORMS))}; got {form!r}")


def check_vocabularies(teacher: int, student: int) -> None:
    """Raise ValueError unless teacher and student have equally many tokens."""
    if teacher != student:
        raise ValueError(
            f"the teacher's vocabulary has {teacher} tokens and the student's {student}: distil from a teacher "
            "with the same codes, or resize one with resize_token_embeddings where the extra tokens are unused"
        )


@dataclass(frozen=True)
class DistillationLoss:
    """Cross-entropy on the ground truth plus the divergence from the teacher, over generated positions alone.

    Parameters
    ----------
    ce_weight, kl_weight
        Weights of the two terms. The digests of the paper give none; 1 and 1 here.
    alpha, form
        Of the divergence, as for :func:`skew_kl`.
    hidden_weight
        Weight of the squared distance between the last hidden states, relative to the teacher's square; 0: none.
    chunk
        Positions whose logits live at once: each chunk takes some ``8 x chunk x vocabulary`` numbers for a while.

    Raises
    ------
    ValueError
        If a weight is negative, all are 0, or another value is outside its range.
    """

    ce_weight: float = 1.0
    kl_weight: float = 1.0
    alpha: float = 0.1
    form: str = "skew"
    hidden_weight: float = 0.0
    chunk: int = 512

    def __post_init__(self) -> None:
        check_divergence(self.alpha, self.form)
        weights = tuple(self.weights.values())
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(
                f"ce_weight, kl_weight and hidden_weight must be 0 or more, one of them above 0; got {weights}"
            )
        if self.chunk < ROWS or self.chunk % ROWS:
            raise ValueError(f"chunk is a number of positions, a multiple of {ROWS}; got {self.chunk}")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term."""
        return {"ce": self.ce_weight, "kl": self.kl_weight, "hidden": self.hidden_weight}

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
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
            What the heads take: the last hidden states. Without heads: the logits themselves.
        labels
            Aligned with the input, -100 where a position does not count; position t - 1 predicts label t, as in
            transformers.
        student_head, teacher_head
            From hidden states to logits, usually the ``lm_head``. Both or none.
        items
            Divide the sums by this many positions and not by the counted ones: ``num_items_in_batch`` of a Trainer
            that accumulates gradients.

        Raises
        ------
        ValueError
            If no position counts, the vocabularies differ, or a teacher is needed and missing.
        """
        if self.needs_teacher and teacher is None:
            raise ValueError("kl_weight or hidden_weight is above 0, so this loss needs the teacher's hidden states")
        if not self.needs_teacher:
            teacher = None
        targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
        places = (targets != IGNORED).nonzero().squeeze(-1)
        count = len(places)
        if count == 0:
            raise ValueError("no position counts: every label from the second on is -100")
        filled = torch.cat([places, places[:1].expand(-count % ROWS)])
        targets = F.pad(targets[places], (0, -count % ROWS), value=IGNORED)
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
        counted = targets != IGNORED
        predicted = log_probabilities(student if student_head is None else student_head(student))
        sums = {"ce": F.nll_loss(predicted, targets, ignore_index=IGNORED, reduction="sum")}
        if teacher is None:
            return sums
        with torch.no_grad():
            taught = log_probabilities(teacher if teacher_head is None else teacher_head(teacher))
        check_vocabularies(taught.shape[-1], predicted.shape[-1])
        sums["agreement"] = ((predicted.argmax(-1) == taught.argmax(-1)) & counted).sum().to(predicted.dtype)
        if self.kl_weight > 0:
            sums["kl"] = (divergence(taught, predicted, self.alpha, self.form) * counted).sum()
        if self.hidden_weight > 0:
            if student.shape != teacher.shape:
                raise ValueError(
                    f"hidden_weight compares hidden states of one width; the student's are {student.shape[-1]} wide "
                    f"and the teacher's {teacher.shape[-1]}: set it to 0"
                )
            teacher = teacher.to(predicted.dtype)
            distance = (student - teacher).square().mean(-1) / teacher.square().mean(-1)
            sums["hidden"] = (distance * counted).sum()
        return sums
