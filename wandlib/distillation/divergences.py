"""Divergences of a student's distribution from its teacher's, in nats.

With p the teacher and q the student,

    skew              KL(p || a p + (1 - a) q)                       DistiLLM, arXiv 2402.03898; WAND, arXiv 2604.08558
    reverse           KL(q || a q + (1 - a) p)                       its mirror, also DistiLLM
    jensen-shannon    (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2    GKD, arXiv 2306.13649

Each is a function of two sets of log-probabilities and of the skew a. To add one, write the function and enter it in
:data:`DIVERGENCES`: the loss, the trainer and the command line find it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def skew(
    teacher: Float[Tensor, "*positions vocabulary"], student: Float[Tensor, "*positions vocabulary"], alpha: float
) -> Float[Tensor, "*positions"]:
    """Compute KL(teacher || alpha teacher + (1 - alpha) student) at each position."""
    return kl(teacher, mixture(teacher, student, alpha))


def reverse(
    teacher: Float[Tensor, "*positions vocabulary"], student: Float[Tensor, "*positions vocabulary"], alpha: float
) -> Float[Tensor, "*positions"]:
    """Compute KL(student || alpha student + (1 - alpha) teacher) at each position."""
    return skew(student, teacher, alpha)


def jensen_shannon(
    teacher: Float[Tensor, "*positions vocabulary"], student: Float[Tensor, "*positions vocabulary"], alpha: float
) -> Float[Tensor, "*positions"]:
    """Compute the Jensen-Shannon divergence at each position; it has no ``alpha``."""
    middle = mixture(teacher, student, 0.5)
    return (kl(teacher, middle) + kl(student, middle)) / 2


DIVERGENCES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "skew": skew,
    "reverse": reverse,
    "jensen-shannon": jensen_shannon,
}
"""Divergences by name: functions of teacher and student log-probabilities and ``alpha``."""


def skew_kl(
    teacher_logits: Float[Tensor, "*positions vocabulary"],
    student_logits: Float[Tensor, "*positions vocabulary"],
    alpha: float = 0.1,
    mask: Bool[Tensor, "*positions"] | None = None,
    divergence: str = "skew",
) -> Float[Tensor, ""]:
    """Compute the divergence of the student from the teacher, in nats, averaged over the counted positions.

    Parameters
    ----------
    teacher_logits, student_logits
        Logits before the softmax. Half precision is computed in float32.
    alpha
        Weight of the first distribution in the mixture, from 0 (plain KL divergence) to below 1. DistiLLM uses 0.1.
        "jensen-shannon" does not use it.
    mask
        True where a position counts; default: everywhere.
    divergence
        A name in :data:`DIVERGENCES`.

    Raises
    ------
    ValueError
        If ``alpha`` is out of range, ``divergence`` is unknown, the vocabularies or shapes differ, the mask is no bool
        for each position, or no position counts.
    """
    check_divergence(alpha, divergence)
    check_vocabularies(teacher_logits.shape[-1], student_logits.shape[-1])
    if teacher_logits.shape != student_logits.shape:
        raise ValueError(
            f"the teacher's logits have the shape {list(teacher_logits.shape)} and the student's "
            f"{list(student_logits.shape)}: give both those of the same positions"
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != teacher_logits.shape[:-1]):
        raise ValueError(
            f"the mask is a bool for each position, {list(teacher_logits.shape[:-1])}; got {mask.dtype} of the shape "
            f"{list(mask.shape)} (numbers would be places, not flags: attention_mask.bool())"
        )
    if mask is not None:
        teacher_logits, student_logits = teacher_logits[mask], student_logits[mask]
    if not teacher_logits.numel():  # a mean over nothing would be NaN
        raise ValueError("no position counts: the mask (or the batch) has no generated position")
    teacher, student = log_probabilities(teacher_logits), log_probabilities(student_logits)
    return DIVERGENCES[divergence](teacher, student, alpha).mean()


def kl(
    first: Float[Tensor, "*positions vocabulary"], second: Float[Tensor, "*positions vocabulary"]
) -> Float[Tensor, "*positions"]:
    """Compute KL(first || second) from log-probabilities; a token that the first never says adds nothing."""
    further = (first - second).masked_fill_(first == -math.inf, 0.0)  # else 0 * inf is NaN
    return (first.exp() * further).sum(-1)


def mixture(
    first: Float[Tensor, "*positions vocabulary"], second: Float[Tensor, "*positions vocabulary"], alpha: float
) -> Float[Tensor, "*positions vocabulary"]:
    """Compute log(alpha first + (1 - alpha) second) from log-probabilities, without rounding any probability to 0."""
    if alpha == 0:
        return second
    lowest = torch.finfo(first.dtype).min  # its exp is 0, too, but the gradient of logaddexp(-inf, -inf) is NaN
    return torch.logaddexp(first.clamp(min=lowest) + math.log(alpha), second.clamp(min=lowest) + math.log1p(-alpha))


def log_probabilities(logits: Float[Tensor, "*positions vocabulary"]) -> Float[Tensor, "*positions vocabulary"]:
    """Compute the log-softmax, at least in float32."""
    return F.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))


def check_divergence(alpha: float, divergence: str) -> None:
    """Raise ValueError unless the divergence exists and ``alpha`` is in its range."""
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha is a weight in the mixture, from 0 (plain KL) to below 1; got {alpha}")
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence must be one of {', '.join(map(repr, DIVERGENCES))}; got {divergence!r}")


def check_vocabularies(teacher: int, student: int) -> None:
    """Raise ValueError unless teacher and student have vocabularies of the same size."""
    if teacher != student:
        raise ValueError(
            f"the teacher's vocabulary has {teacher} tokens and the student's {student}: distil from a teacher "
            "with the same codes, or resize one with resize_token_embeddings where the extra tokens are unused"
        )
