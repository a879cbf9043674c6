"""What stands before a causal decoder's head: the hidden states, taken without making the logits.

One forward pre-hook on the head takes its input and leaves it nothing to do. The model's own forward runs unmodified,
whatever wraps it (DDP, FSDP, autocast), and what is computed from the hidden states is computed inside of it, where
those wrappers expect the weights to be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wandlib.attention.conversion import base_decoder, full_attention, inner_model

Result = TypeVar("Result")


def head_of(model: nn.Module) -> nn.Module:
    """The module that makes logits of hidden states.

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
    """Run ``call(**inputs)`` and return ``use(hidden states)``; the head makes logits for no position.

    Parameters
    ----------
    call
        The model, or what a trainer wrapped it in.
    head
        The model's head; ``use`` may call it.
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
    """Evaluation mode (no dropout) and no gradients, until the block ends."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def logits_are_head_output(model: nn.Module) -> bool:
    """Whether the logits are, to the bit, what the head makes: some models scale or cap them afterwards (Gemma 2)."""
    head = head_of(model)
    inputs = {"input_ids": torch.arange(8, device=next(model.parameters()).device)[None], "use_cache": False}
    converted = getattr(base_decoder(model), "wand", None) is not None
    with eval_mode(model), full_attention(model) if converted else nullcontext():
        hidden = with_hidden_states(model, head, inputs, lambda states: states)
        return torch.equal(model(**inputs).logits.float(), head(hidden).float())
