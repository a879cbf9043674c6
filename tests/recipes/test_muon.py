"""The optimizer of the teacher's matrices, against torch's own."""

import pytest
import torch

from recipes.mini.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_singular_values_end_near_one(shape: tuple[int, int]) -> None:
    """Between .5 and 1.5, as the iteration's authors say, whatever they were; the vectors stay."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonal(matrix)
    inner = left.T @ made @ right.T
    assert 0.5 < float(inner.diagonal().min()) <= float(inner.diagonal().max()) < 1.5
    assert float((inner - inner.diagonal().diag()).abs().max()) < 1e-6
    assert float(values.max() / values.min()) > 3


def test_it_takes_torchs_steps() -> None:
    """Except for the precision: torch's products are in bfloat16, 8 bits."""
    start = torch.randn(24, 40, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = (
        Muon([ours], lr=0.02, weight_decay=0.3),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"),
    )
    for number in range(6):
        gradient = torch.randn(start.shape, generator=torch.Generator().manual_seed(10 + number))
        for value, optimizer in zip((ours, theirs), optimizers, strict=True):
            value.grad = gradient.clone()
            optimizer.step()
    moved = float((theirs.detach() - start).norm())
    assert float((ours - theirs).detach().norm()) < 0.02 * moved


def test_its_state_is_torchs() -> None:
    value = torch.nn.Parameter(torch.ones(3, 4))
    value.grad = torch.ones(3, 4)
    ours = Muon([value], lr=0.1, weight_decay=0.0)
    ours.step()
    theirs = torch.optim.Muon([value], lr=0.1)
    theirs.step()
    assert ours.state_dict()["state"].keys() == theirs.state_dict()["state"].keys()
    assert ours.state_dict()["state"][0].keys() == theirs.state_dict()["state"][0].keys()
