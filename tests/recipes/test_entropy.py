"""The rate of the codes, while the codec is trained."""

import math

import numpy as np
import pytest
import torch

from recipes.mini import entropy
from recipes.mini.entropy import PAST, SAID, EntropyModel, said_of
from wandlib.systems.mini.codec import CODES, FiniteScalarQuantizer


@pytest.fixture
def model() -> EntropyModel:
    torch.manual_seed(0)
    return EntropyModel(speaker_dims=8, width=32)


def codes(numbers: torch.Tensor) -> torch.Tensor:
    return FiniteScalarQuantizer().values(numbers)


def test_what_is_said_at_a_code() -> None:
    said = said_of([5, 6, 7], np.array([0, 0, 1, 2, 2, 2], np.int16))
    assert said.tolist() == [
        [0, 6, 7, 8, 0, 0],
        [0, 6, 7, 8, 0, 1],
        [6, 7, 8, 0, 0, 0],
        [7, 8, 0, 0, 0, 0],
        [7, 8, 0, 0, 0, 1],
        [7, 8, 0, 0, 0, 2],
    ]
    assert said_of([5, 6], np.zeros(0, np.int16)).shape == (0, SAID)
    assert said_of([5], np.zeros(40, np.int16))[:, -1].max() == entropy.AGES - 1


def test_all_codes_share_one_probability(model: EntropyModel) -> None:
    """Summed over all 4,375: the outermost levels have what lies beyond them, else some would be missing."""
    with torch.no_grad():
        model.layers[-1].bias[:5] = 3.0  # the middle lies beyond the outermost level
        every = codes(torch.arange(CODES)).unsqueeze(1)
        said, speaker = torch.ones(CODES, 1, SAID, dtype=torch.long), torch.ones(CODES, 8)
        assert float((-model(every, said, speaker)).exp().sum()) == pytest.approx(1, abs=1e-4)


def test_only_codes_before_a_code_are_known(model: EntropyModel) -> None:
    one = codes(torch.randint(CODES, (1, 20), generator=torch.Generator().manual_seed(1)))
    other = one.clone()
    other[0, 8] = codes(torch.tensor(0))
    said, speaker = torch.ones(1, 20, SAID, dtype=torch.long), torch.ones(1, 8)
    differ = (model(one, said, speaker) != model(other, said, speaker))[0]
    assert differ.nonzero().flatten().tolist() == list(range(8, 8 + PAST + 1))


def test_what_can_be_predicted_costs_little(model: EntropyModel) -> None:
    """Codes that follow from the phone: they end up cheap, and dear for other phones."""
    table = torch.randint(CODES, (20,), generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    speaker = torch.zeros(8, 8)

    def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        said = torch.randint(20, (8, 32, SAID), generator=torch.Generator().manual_seed(seed)).clamp(max=15)
        return codes(table[said[..., 1]]), said

    for number in range(300):
        quantized, said = drawn(number)
        model(quantized, said, speaker).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    quantized, said = drawn(1000)
    known, unknown = (float(model(row, said, speaker).mean().detach()) for row in (quantized, quantized.flip(1)))
    assert known < 0.25 * math.log(CODES) < 8 < unknown


def test_a_code_is_pulled_towards_what_was_expected(model: EntropyModel) -> None:
    with torch.no_grad():
        model.layers[-1].weight.zero_()
        model.layers[-1].bias[:] = 0.0
    quantized = torch.tensor([[[2 / 3, -0.5, 0.0, 1.0, -1.0]]], requires_grad=True)
    model(quantized, torch.ones(1, 1, SAID, dtype=torch.long), torch.zeros(1, 8)).sum().backward()
    assert quantized.grad is not None
    assert torch.equal(quantized.grad.round(decimals=4).sign(), quantized.detach().sign())
