"""Weight normalization, folded into plain weights when a checkpoint is read.

A weight-normalized layer stores a direction v and a gain g for each slice of its first axis (Salimans and Kingma,
arXiv 1602.07868)::

    w = g v / ||v||

After training nothing is gained by computing w in every pass, and a plain layer needs no deprecated wrapper.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PAIRS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
"""The names of g and v, as torch's old and new wrappers store them."""


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict with a plain ``weight`` in place of each pair of gain and direction.

    Parameters
    ----------
    state
        State dict of a model with or without weight normalization.

    Raises
    ------
    ValueError
        If a gain has no direction.
    """
    folded = dict(state)
    for gain_name, direction_name in PAIRS:
        for name in [name for name in folded if name.endswith(f".{gain_name}") or name == gain_name]:
            stem = name.removesuffix(gain_name)
            direction = folded.pop(f"{stem}{direction_name}", None)
            if direction is None:
                raise ValueError(f"the checkpoint has {name} and no {stem}{direction_name}: the file is incomplete")
            folded[f"{stem}weight"] = torch._weight_norm(direction, folded.pop(name), 0)
    return folded


def unfold_weight_norm(state: Mapping[str, Tensor], weights: set[str]) -> dict[str, Tensor]:
    """State dict with the named ``weight`` entries as gain and direction again, for code that expects the pair.

    Parameters
    ----------
    state
        State dict of plain layers.
    weights
        Names of the entries to split, each ending in ``weight``.
    """
    split = dict(state)
    for name in weights:
        weight = split.pop(name)
        axes = tuple(range(1, weight.ndim))
        split[f"{name}_g"] = torch.linalg.vector_norm(weight, dim=axes, keepdim=True)
        split[f"{name}_v"] = weight
    return split
