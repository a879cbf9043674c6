"""A pass of a converted model over a cache of the caller's."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from wandlib import WandCache
from wandlib.attention.models import cache_inputs


def feed(model: PreTrainedModel, cache: WandCache, ids: Tensor, **options: Any) -> Tensor:
    """Return the logits of some tokens, which the cache then holds."""
    return model(input_ids=ids, use_cache=True, **cache_inputs(model, cache), **options).logits  # type: ignore[no-any-return]
