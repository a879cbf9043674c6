"""``grouped_sdpa``: attention under a mask without a copy of the keys for each head that shares them.

Where heads share keys and there is a mask, transformers' ``sdpa`` repeats keys and values once for each head (except in
a step of one token that is not compiled). Here the heads that share keys become queries of one head, for the same
result::

    query   [batch, heads, T, d]  ->  [batch, kv_heads, groups * T, d]

That pays while the queries are few: in the steps of a static cache, and where sequences share a prompt. All else goes
to ``sdpa``. To switch it on: ``model.set_attn_implementation("grouped_sdpa")``; :func:`wandlib.compile_step` does.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED = "grouped_sdpa"


def grouped_sdpa(
    module: nn.Module,
    query: Float[Tensor, "batch heads length size"],
    key: Float[Tensor, "batch kv_heads slots size"],
    value: Float[Tensor, "batch kv_heads slots size"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers' `AttentionInterface` has it.

    Parameters
    ----------
    attention_mask
        Boolean or additive, [batch or 1, heads or 1, length, slots], or None.

    Returns
    -------
    What each query reads, [batch, length, heads, size], and None for the weights.
    """
    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    few = length < query.shape[3]  # than channels: to repeat the mask is less than to repeat the keys
    biased = kwargs.get("position_bias") is not None
    if groups == 1 or not few or biased or attention_mask is None or attention_mask.shape[1] > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    mask = attention_mask if length == 1 else attention_mask.repeat(1, 1, groups, 1)
    packed = query.unflatten(1, (-1, groups)).flatten(2, 3)
    read = F.scaled_dot_product_attention(packed, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return read.unflatten(2, (groups, length)).flatten(1, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, grouped_sdpa)
AttentionMaskInterface.register(GROUPED, sdpa_mask)
