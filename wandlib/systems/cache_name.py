"""How this release of transformers names the cache: ``past_key_values`` up to 5.23, ``cache`` from 5.24 on."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn


def cache_argument(model: nn.Module) -> str:
    """Name of the argument of ``model.forward`` that takes a cache."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def cache_of(output: Any) -> Any:
    """Cache in a model's output, or None."""
    return getattr(output, "cache", None) or getattr(output, "past_key_values", None)
