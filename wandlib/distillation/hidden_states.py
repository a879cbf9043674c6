"""Last hidden states of a causal decoder, taken without computing the logits.

One forward pre-hook on the head takes its input and leaves it none. The model's own forward runs unmodified, whatever
wraps it (DDP, FSDP, autocast), and what is computed from the hidden states is computed inside that forward, where those
wrappers expect the weights to be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wandlib.attention.conversion import full_attention
from wandlib.attention.models import base_decoder, inner_model

Result = TypeVar("Result")


def head_of(model: nn.Module) -> nn.Module:
    """Return the module that computes logits from hidden states.

    Raises
    ------
    ValueError
        If the model has none.
    """
    head = inner_model(model).get_output_embeddings()
    if not isinstance(head, nn.Module):
        raise ValueError(f"{type(model).__name__} has no output head: pass the ...ForCausalLM, not its base model")
    return head


def with_hidden_states(
    call: Callable[..., Any],
    head: nn.Module,
    inputs: Mapping[str, Any],
    use: Callable[[Float[Tensor, "batch time features"]], Result],
) -> Result:
    """Run ``call(**inputs)`` and return ``use(hidden states)``; the head computes logits for no position.

    Parameters
    ----------
    call
        The model, or a trainer's wrapper around it.
    head
        The model's head; ``use`` may call it.
    inputs
        Keyword arguments of the model's forward.
    use
        Function of the head's input.
    """
    results: list[Result] = []

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        handle.remove()
        results.append(use(args[0]))
        return (args[0][:, :0],)

    handle = head.register_forward_pre_hook(before)
    try:
        call(**inputs)
    finally:
        handle.remove()
    return results[0]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode (no dropout) without gradients until the block ends."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def logits_are_head_output(model: nn.Module) -> bool:
    """Return whether the logits are the head's output, bit for bit: some models scale or cap them (Gemma 2)."""
    head = head_of(model)
    inputs = {"input_ids": torch.arange(8, device=next(model.parameters()).device)[None], "use_cache": False}
    converted = getattr(base_decoder(model), "wand", None) is not None
    with eval_mode(model), full_attention(model) if converted else nullcontext():
        hidden = with_hidden_states(model, head, inputs, lambda states: states)
        return torch.equal(model(**inputs).logits.float(), head(hidden).float())
