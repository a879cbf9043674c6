"""Floor: the kernels that a step cannot do without, and nothing else.

The matrix products of every layer and of the head, with the model's own weights, and one attention over P + W entries a
layer. No norm, no rotary embedding, no residual, no cache, none of the model's Python: a step's time above it is
overhead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from wandlib.attention.models import base_decoder
from wandlib.profiling.estimate import head_shape


class Floor:
    """One step of bare kernels.

    Parameters
    ----------
    model
        Model whose weights are read.
    batch, slots
        Number of sequences, and of entries that attention reads, P + W.
    """

    def __init__(self, model: PreTrainedModel, *, batch: int, slots: int) -> None:
        layers = next(child for child in base_decoder(model).children() if isinstance(child, nn.ModuleList))
        heads, kv_heads, dimension = head_shape(model.config)
        like: dict[str, Any] = {"dtype": model.dtype, "device": model.device}
        attention = partial(F.scaled_dot_product_attention, enable_gqa=heads != kv_heads)
        query = torch.randn(batch, heads, 1, dimension, **like)
        states: dict[int, Tensor] = {}
        self.kernels: list[tuple[Callable[..., Tensor], tuple[Any, ...]]] = []

        def product(module: nn.Module) -> None:
            weight: Any = module.weight
            inputs = weight.shape[0] if isinstance(module, Conv1D) else weight.shape[1]
            state = states.setdefault(inputs, torch.randn(batch, inputs, **like))
            if isinstance(module, Conv1D):
                self.kernels.append((torch.addmm, (module.bias, state, weight)))
            else:
                self.kernels.append((F.linear, (state, weight, module.bias)))

        for layer in layers:
            for module in layer.modules():
                if isinstance(module, nn.Linear | Conv1D):
                    product(module)
            keys, values = torch.randn(2, batch, kv_heads, slots, dimension, **like)
            self.kernels.append((attention, (query, keys, values)))
        product(model.get_output_embeddings())

    @property
    def nbytes(self) -> int:
        """Bytes of weights, keys and values that a step reads."""
        read = {
            tensor.data_ptr(): tensor.nbytes
            for _, (first, *rest) in self.kernels
            for tensor in (first, *rest)
            if tensor is not None
        }
        return sum(read.values())

    def __call__(self) -> None:
        """Run all kernels once."""
        for kernel, arguments in self.kernels:
            kernel(*arguments)
