"""What codes have in common, while the teacher is trained: an embedding for each of their digits.

A code is five digits of few levels (:class:`~wandlib.systems.mini.codec.FiniteScalarQuantizer`), and codes that differ
little in them sound alike. 4,375 embeddings that know nothing of that learn it one by one, each from the four hundred
times that it is said in 20 hours. Here the embedding of a code is its own and those of its digits, added: what is
learned of one code is learned of its neighbors, in what is read and, since the embeddings are tied, in what is
predicted. In the end the sum is stored, and the model is a stock one.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wandlib.systems.mini.codec import CODES, LEVELS, FiniteScalarQuantizer
from wandlib.systems.mini.prompt import FIRST_CODE

NAME = "embed_digits"
TABLE = "model.embed_tokens.weight"


def add_digits(model: Any) -> None:
    """Give a model embeddings of digits, [27, width], zero at first: it is the same model until it learns."""
    model.register_parameter(NAME, nn.Parameter(torch.zeros(sum(LEVELS), model.config.hidden_size)))


def embeddings(model: Any) -> Float[Tensor, "vocabulary width"]:
    """Return the embeddings that a model reads and predicts with; its own, where it has none of digits."""
    own, digits = model.get_input_embeddings().weight, getattr(model, NAME, None)
    return own if digits is None else _with_digits(own, digits)


def folded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in which the digits' embeddings, where there are some, are added to the codes' own."""
    kept = dict(weights)
    if NAME in kept:
        kept[TABLE] = _with_digits(kept[TABLE], kept.pop(NAME))
    return kept


def _with_digits(own: Tensor, digits: Tensor) -> Tensor:
    shared = digits_of_codes().to(digits) @ digits
    return own + nn.functional.pad(shared, (0, 0, FIRST_CODE, len(own) - FIRST_CODE - CODES))


@functools.cache
def digits_of_codes() -> Float[Tensor, "codes 27"]:
    """Say of each code which digits it has: a one for each of five, among the levels of all."""
    quantizer = FiniteScalarQuantizer()
    digits = ((quantizer.values(torch.arange(CODES)) + 1) * quantizer.reach).round().long()
    columns = [nn.functional.one_hot(digits[:, place], levels) for place, levels in enumerate(LEVELS)]
    return torch.cat(columns, 1).float()
