"""What is read off a transformers model: the one file that knows its versions and names."""

from __future__ import annotations

import inspect
from typing import Any

CACHE_ARGUMENTS = ("cache", "past_key_values")
"""What decoders call their key-value cache, newest first: transformers 5.24 renamed ``past_key_values``."""


def inner_model(model: Any) -> Any:
    """Return the transformers model itself, out of the wrapper that PEFT puts around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def cache_argument(model: Any) -> str:
    """Return the name of the argument, and of the output field, that holds a model's key-value cache.

    Raises
    ------
    ValueError
        If its forward takes none.
    """
    parameters = inspect.signature(getattr(inner_model(model), "forward", model)).parameters
    for name in CACHE_ARGUMENTS:
        if name in parameters:
            return name
    raise ValueError(
        f"the forward of {type(model).__name__} takes no key-value cache: it has no decoding steps to bound"
    )


def cache_inputs(model: Any, cache: Any) -> dict[str, Any]:
    """Return ``cache`` as the keyword argument that ``model`` takes it by: ``model(ids, **cache_inputs(model, cache))``."""
    return {cache_argument(model): cache}
