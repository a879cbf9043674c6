"""The losses: their limits, their gradients, and the memory they take."""

from __future__ import annotations

import math
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wandlib.distillation.divergences import skew_kl
from wandlib.distillation.losses import DistillationLoss

DIVERGENCES = pytest.mark.parametrize("divergence", ["skew", "reverse", "jensen-shannon"])
VOCABULARY = 31


def logits(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 * torch.randn(*shape, VOCABULARY, dtype=dtype)


def slow_kl(first: Tensor, second: Tensor) -> Tensor:
    """From the definition, with probabilities."""
    return (first * (first / second).log()).sum(-1).mean()


def test_each_form_is_its_definition() -> None:
    teacher, student = logits(2, 5), logits(2, 5)
    p, q = teacher.softmax(-1), student.softmax(-1)
    m = (p + q) / 2
    slow = {
        "skew": slow_kl(p, 0.3 * p + 0.7 * q),
        "reverse": slow_kl(q, 0.3 * q + 0.7 * p),
        "jensen-shannon": (slow_kl(p, m) + slow_kl(q, m)) / 2,
    }
    for divergence, expected in slow.items():
        torch.testing.assert_close(skew_kl(teacher, student, 0.3, divergence=divergence), expected)


def test_alpha_0_is_plain_kl_either_way_round() -> None:
    teacher, student = logits(7), logits(7)
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    plain = F.kl_div(q, p, log_target=True, reduction="batchmean")
    mirrored = F.kl_div(p, q, log_target=True, reduction="batchmean")
    torch.testing.assert_close(skew_kl(teacher, student, alpha=0.0), plain)
    torch.testing.assert_close(skew_kl(teacher, student, alpha=0.0, divergence="reverse"), mirrored)


@DIVERGENCES
def test_equal_distributions_give_0_and_no_gradient(divergence: Any) -> None:
    teacher = logits(7)
    student = (teacher + torch.randn(7, 1)).requires_grad_()  # a constant changes no distribution
    loss = skew_kl(teacher, student, divergence=divergence)
    (gradient,) = torch.autograd.grad(loss, student)
    assert abs(loss.item()) < 1e-12
    assert gradient.abs().max() < 1e-12


@DIVERGENCES
def test_bounds(divergence: Any) -> None:
    """Never negative; where the two share nothing, -log alpha at most, log 2 for Jensen and Shannon."""
    apart = torch.eye(2, dtype=torch.float64) * 500
    teacher, student = apart[:1], apart[1:]
    most = {"skew": -math.log(0.1), "reverse": -math.log(0.1), "jensen-shannon": math.log(2)}
    assert skew_kl(teacher, student, divergence=divergence).item() == pytest.approx(most[divergence])
    assert all(0 <= skew_kl(logits(3), logits(3), divergence=divergence) <= most[divergence] for _ in range(10))


@DIVERGENCES
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_gradient_against_finite_differences(divergence: Any, alpha: float) -> None:
    teacher = torch.randn(2, 6, dtype=torch.float64)
    student = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: skew_kl(teacher, x, alpha, divergence=divergence), student)


@DIVERGENCES
def test_masked_positions_cannot_matter(divergence: Any) -> None:
    teacher, student = logits(2, 5), logits(2, 5)
    mask = torch.tensor([[True, True, False, True, False], [False, True, True, False, False]])
    expected = skew_kl(teacher[mask], student[mask], divergence=divergence)
    hidden = ~mask[..., None]
    for value in (0.0, 1e6, math.nan, math.inf):
        spoiled = student.masked_fill(hidden, value).requires_grad_()
        loss = skew_kl(teacher.masked_fill(hidden, -value), spoiled, mask=mask, divergence=divergence)
        (gradient,) = torch.autograd.grad(loss, spoiled)
        assert loss.item() == expected.item()
        assert bool((gradient[~mask] == 0).all())


@DIVERGENCES
def test_bfloat16_is_computed_in_float32(divergence: Any) -> None:
    teacher, student = logits(64).bfloat16(), logits(64).bfloat16()
    expected = skew_kl(teacher.double(), student.double(), divergence=divergence)
    torch.testing.assert_close(skew_kl(teacher, student, divergence=divergence).double(), expected, rtol=1e-5, atol=0)
    extreme = torch.tensor([[3e4, -3e4, 0.0]], dtype=torch.bfloat16)
    far = extreme.flip(-1).requires_grad_()
    loss = skew_kl(extreme, far, divergence=divergence)
    (gradient,) = torch.autograd.grad(loss, far)
    assert loss.isfinite()
    assert bool(gradient.isfinite().all())


@DIVERGENCES
@pytest.mark.parametrize(
    "banned", [("both", [0], [0]), ("teacher", [0], []), ("student", [], [0]), ("each", [0, 1], [1, 2])]
)
def test_tokens_that_are_never_said(divergence: Any, banned: tuple[str, list[int], list[int]]) -> None:
    """A logit of -inf gives what a very low one gives, loss and gradient."""
    teacher, student = logits(3), logits(3)
    found = []
    for lowest in (-1e4, -math.inf):
        given, own = teacher.clone(), student.clone()
        given[:, banned[1]], own[:, banned[2]] = lowest, lowest
        loss = skew_kl(given, own.requires_grad_(), divergence=divergence)
        found.append((loss, *torch.autograd.grad(loss, own)))
    assert all(bool(value.isfinite().all()) for value in found[1])
    torch.testing.assert_close(found[1], found[0])


@DIVERGENCES
def test_without_skew_what_only_one_says_is_infinitely_far(divergence: Any) -> None:
    """As the formula has it: KL(p || q) where q is 0 and p is not; Jensen and Shannon have a bound."""
    for teacher, student in (([0.0, 0.0], [0.0, -math.inf]), ([0.0, -math.inf], [0.0, 0.0])):
        loss = skew_kl(torch.tensor([teacher]), torch.tensor([student]), alpha=0.0, divergence=divergence)
        apart = {"skew": student[1] < 0, "reverse": teacher[1] < 0, "jensen-shannon": False}[divergence]
        assert loss.isinf() == apart
        assert not loss.isnan()


@DIVERGENCES
def test_what_is_not_a_number_stays_none(divergence: Any) -> None:
    broken = logits(3)
    broken[1, 4] = math.nan
    assert skew_kl(broken, logits(3), divergence=divergence).isnan()
    assert skew_kl(logits(3), broken, divergence=divergence).isnan()


def test_skew_kl_refuses() -> None:
    with pytest.raises(ValueError, match=r"below 1; got 1\.0"):
        skew_kl(logits(2), logits(2), alpha=1.0)
    with pytest.raises(ValueError, match="'forward'"):
        skew_kl(logits(2), logits(2), divergence="forward")
    with pytest.raises(ValueError, match="no position counts"):
        skew_kl(logits(2), logits(2), mask=torch.zeros(2, dtype=torch.bool))


@pytest.mark.parametrize(
    ("shape", "mask", "message"),
    [
        ((2, 5), torch.ones(2, 5, dtype=torch.long), r"a bool for each position, \[2, 5\]; got torch.int64"),
        ((2, 5), torch.ones(2, 5), "got torch.float32"),
        ((2, 5), torch.ones(2, dtype=torch.bool), r"got torch.bool of the shape \[2\]"),
        ((1, 5), None, r"shape \[2, 5, 97\] and the student's \[1, 5, 97\]"),
    ],
)
def test_skew_kl_refuses_other_positions(
    shape: tuple[int, int], mask: Tensor | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole numbers would pick rows; a student of one row would be repeated."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        skew_kl(torch.randn(2, 5, 97), torch.randn(*shape, 97), mask=mask)


# ------------------------------------------------------------------------------------------------------ the whole loss


class Setting:
    """Two heads, hidden states, and labels of which some count: none at the first place, that nothing predicts."""

    def __init__(self, batch: int = 3, time: int = 90, dtype: torch.dtype = torch.float64) -> None:
        self.student_head = nn.Linear(8, VOCABULARY, bias=False, dtype=dtype)
        self.teacher_head = nn.Linear(8, VOCABULARY, bias=False, dtype=dtype)
        self.student = torch.randn(batch, time, 8, dtype=dtype, requires_grad=True)
        self.teacher = torch.randn(batch, time, 8, dtype=dtype)
        self.labels = torch.randint(VOCABULARY, (batch, time))
        self.labels[:, :20] = -100
        self.labels[-1, 33:40] = -100
        self.labels[0, 80:] = -100

    def chunked(self, loss: DistillationLoss, **options: Any) -> Any:
        heads = {"student_head": self.student_head, "teacher_head": self.teacher_head}
        return loss(self.student, self.labels, self.teacher, **heads, **options)

    def naive(self, divergence: Any = "skew", hidden_weight: float = 0.0) -> Tensor:
        """All logits at once, shifted as transformers shifts them."""
        predicted, taught = self.student_head(self.student)[:, :-1], self.teacher_head(self.teacher)[:, :-1]
        targets = self.labels[:, 1:]
        ce = F.cross_entropy(predicted.flatten(0, 1), targets.flatten(), ignore_index=-100)
        counted = targets != -100
        student, teacher = self.student[:, :-1][counted], self.teacher[:, :-1][counted]
        hidden = ((student - teacher) ** 2).sum(-1) / (teacher**2).sum(-1)
        return (
            ce + 0.5 * skew_kl(taught, predicted, mask=counted, divergence=divergence) + hidden_weight * hidden.mean()
        )


@DIVERGENCES
@pytest.mark.parametrize("hidden_weight", [0.0, 0.7])
@pytest.mark.parametrize("chunk", [64, 512])
def test_chunks_equal_the_whole(divergence: Any, hidden_weight: float, chunk: int) -> None:
    setting = Setting()
    loss = DistillationLoss(kl_weight=0.5, divergence=divergence, hidden_weight=hidden_weight, chunk=chunk)
    wanted = [setting.student, setting.student_head.weight]
    chunked, naive = setting.chunked(loss).loss, setting.naive(divergence, hidden_weight)
    torch.testing.assert_close(chunked, naive)
    for ours, theirs in zip(torch.autograd.grad(chunked, wanted), torch.autograd.grad(naive, wanted), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_logits_in_place_of_hidden_states() -> None:
    setting = Setting()
    loss = DistillationLoss(kl_weight=0.5)
    whole = loss(setting.student_head(setting.student), setting.labels, setting.teacher_head(setting.teacher))
    torch.testing.assert_close(whole.loss, setting.naive())


@DIVERGENCES
def test_a_vocabulary_of_which_a_part_is_never_said(divergence: Any) -> None:
    """Text tokens masked with -inf in both models, as some codec language models do: as if they were not there."""
    setting = Setting()
    setting.labels[setting.labels > 19] = 19
    loss, found = DistillationLoss(divergence=divergence), []
    for cut in (lambda x: x[..., :20], lambda x: x.masked_fill(torch.arange(VOCABULARY) > 19, -math.inf)):
        student = cut(setting.student_head(setting.student))
        whole = loss(student, setting.labels, cut(setting.teacher_head(setting.teacher))).loss
        found.append((whole, *torch.autograd.grad(whole, setting.student)))
    torch.testing.assert_close(found[1], found[0])


def test_uncounted_positions_cannot_matter() -> None:
    setting = Setting()
    expected = setting.chunked(DistillationLoss()).loss
    spare = F.pad(setting.labels[:, 1:], (0, 1), value=-100) == -100
    setting.student = setting.student.detach().masked_fill(spare[..., None], math.nan).requires_grad_()
    setting.teacher = setting.teacher.masked_fill(spare[..., None], math.nan)
    loss = setting.chunked(DistillationLoss()).loss
    loss.backward()
    assert loss.item() == expected.item()
    assert setting.student.grad is not None
    assert bool((setting.student.grad[spare] == 0).all())
    assert bool((setting.student.grad[~spare].abs().sum(-1) > 0).all())


def test_gradient_of_the_whole_loss_against_finite_differences() -> None:
    setting = Setting(batch=1, time=26)
    loss = DistillationLoss(hidden_weight=0.3)

    def of(student: Tensor, weight: Tensor) -> Tensor:
        def head(states: Tensor) -> Tensor:
            return states @ weight.T

        heads = {"student_head": head, "teacher_head": setting.teacher_head}
        return loss(student, setting.labels, setting.teacher, **heads).loss

    assert torch.autograd.gradcheck(of, (setting.student, setting.student_head.weight))


def test_parts_add_up_over_micro_batches() -> None:
    """With ``items`` the count of all, the losses of two halves sum up to the loss of the whole."""
    setting = Setting(batch=4)
    loss = DistillationLoss()
    whole = setting.chunked(loss)
    heads = {"student_head": setting.student_head, "teacher_head": setting.teacher_head, "items": whole.positions}
    halves = [
        loss(setting.student[part], setting.labels[part], setting.teacher[part], **heads).loss
        for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(halves[0] + halves[1], whole.loss)


def test_a_student_equal_to_its_teacher_agrees_everywhere() -> None:
    setting = Setting()
    same = {"student_head": setting.student_head, "teacher_head": setting.student_head}
    losses = DistillationLoss()(setting.student, setting.labels, setting.student, **same)
    assert losses.sums["agreement"].item() == losses.positions == int((setting.labels[:, 1:] != -100).sum())
    assert abs(losses.sums["kl"].item()) < 1e-9
    other = setting.chunked(DistillationLoss())
    taught, predicted = setting.teacher_head(setting.teacher), setting.student_head(setting.student)
    counted = setting.labels[:, 1:] != -100
    agreement = (taught.argmax(-1) == predicted.argmax(-1))[:, :-1][counted].sum()
    assert other.sums["agreement"].item() == agreement.item()


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return made


def test_neither_model_s_logits_are_ever_held() -> None:
    """At a vocabulary of 150 000, forward and backward, no tensor is larger than one chunk's logits."""
    vocabulary, width, chunk, batch, time = 150_000, 2, 64, 2, 65
    student = torch.randn(batch, time, width, requires_grad=True)
    teacher = torch.randn(batch, time, width)
    head = nn.Linear(width, vocabulary, bias=False)
    labels = torch.randint(vocabulary, (batch, time))
    with Largest() as largest:
        heads = {"student_head": head, "teacher_head": head}
        DistillationLoss(chunk=chunk)(student, labels, teacher, **heads).loss.backward()
    assert largest.bytes == chunk * vocabulary * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ce_weight": -1.0}, r"got \(-1.0, 1.0, 0.0\)"),
        ({"ce_weight": 0.0, "kl_weight": 0.0}, r"one of them above 0; got \(0.0, 0.0, 0.0\)"),
        ({"alpha": -0.1}, "got -0.1"),
        ({"chunk": 100}, "a multiple of 64; got 100"),
    ],
)
def test_refuses(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillationLoss(**wrong)


def test_refuses_what_it_cannot_compare() -> None:
    setting = Setting()
    heads = {"student_head": setting.student_head, "teacher_head": nn.Linear(8, 40, dtype=torch.float64)}
    with pytest.raises(ValueError, match="40 tokens and the student's 31"):
        DistillationLoss()(setting.student, setting.labels, setting.teacher, **heads)
    with pytest.raises(ValueError, match="needs the teacher"):
        DistillationLoss()(setting.student, setting.labels)
    with pytest.raises(ValueError, match="no position counts"):
        DistillationLoss()(setting.student, torch.full_like(setting.labels, -100), setting.teacher)
    wide = {"student_head": setting.student_head, "teacher_head": nn.Linear(12, VOCABULARY, dtype=torch.float64)}
    with pytest.raises(ValueError, match="8 wide and the teacher's 12"):
        DistillationLoss(hidden_weight=1.0)(
            setting.student, torch.ones_like(setting.labels), torch.randn(3, 90, 12, dtype=torch.float64), **wide
        )
