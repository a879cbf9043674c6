"""Embeddings that codes share by their digits while the teacher is trained, and the stock model that is stored."""

from typing import Any

import pytest
import torch
from tiny_rows import talk
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from recipes.mini import train_teacher
from recipes.mini.digits import NAME, add_digits, digits_of_codes, embeddings, folded
from recipes.mini.rows import Speech
from wandlib.systems.mini.codec import CODES, LEVELS, FiniteScalarQuantizer
from wandlib.systems.mini.prompt import FIRST_CODE, VOCABULARY


@pytest.fixture
def model() -> Qwen2ForCausalLM:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(vocab_size=VOCABULARY, **shape, num_hidden_layers=4, tie_word_embeddings=True)
    torch.manual_seed(0)
    made = Qwen2ForCausalLM(config)
    add_digits(made)
    return made


def parameters(model: Any) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.named_parameters()}


def test_digits_are_those_of_the_quantizer() -> None:
    digits, columns = digits_of_codes(), torch.tensor(LEVELS).cumsum(0)
    values = FiniteScalarQuantizer().values(torch.arange(CODES))
    strides = torch.tensor([1, *LEVELS[:-1]]).cumprod(0)
    for place, end in enumerate(columns.tolist()):
        levels = digits[:, end - LEVELS[place] : end]
        assert torch.equal(levels.sum(1), torch.ones(CODES))
        assert torch.equal(levels.argmax(1), ((values[:, place] + 1) * (LEVELS[place] // 2)).round().long())
        assert torch.equal(levels.argmax(1), torch.arange(CODES) // strides[place] % LEVELS[place])


def test_at_first_it_is_the_same_model(model: Qwen2ForCausalLM) -> None:
    assert torch.equal(embeddings(model), model.get_input_embeddings().weight)


def test_what_one_code_learns_its_neighbors_learn(model: Qwen2ForCausalLM) -> None:
    code, alike = FIRST_CODE + 2000, FIRST_CODE + 2001  # one digit is another
    embeddings(model)[code].sum().backward()
    with torch.no_grad():
        for value in model.parameters():
            value -= 0 if value.grad is None else value.grad
    moved = (embeddings(model) - model.get_input_embeddings().weight).detach().mean(1)
    assert moved[code] == pytest.approx(-5)
    assert moved[alike] == pytest.approx(-4)
    assert not moved[:FIRST_CODE].any()
    assert moved[-1] == 0


def test_the_stored_model_predicts_what_the_trained_one_does(model: Qwen2ForCausalLM) -> None:
    torch.nn.init.normal_(model.get_parameter(NAME), std=0.5)
    batch = train_teacher.batch_of(Speech(talk(12)), Speech(talk(12)).rows(0)[:3], 0)
    stock = Qwen2ForCausalLM(model.config)
    missing, unexpected = stock.load_state_dict(folded(parameters(model)), strict=False)
    stock.tie_weights()
    assert (missing, unexpected) == (["lm_head.weight"], [])
    assert folded(parameters(stock)).keys() == parameters(stock).keys()
    with torch.no_grad():
        expected, got, untrained = (
            train_teacher.cross_entropy(one, batch) for one in (model, stock, Qwen2ForCausalLM(model.config))
        )
    assert got == pytest.approx(float(expected), abs=1e-3)
    assert abs(float(untrained - expected)) > 0.1
