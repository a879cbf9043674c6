"""Rotary embeddings in a saved config, as transformers before version 5 reads them.

Transformers 5 saves ``rope_parameters = {"rope_type": ..., "rope_theta": ..., ...}``. Older releases do not know this
entry and fall back to the default base without a warning. They read ``rope_theta``, ``partial_rotary_factor`` and
``rope_scaling`` at the top level of ``config.json``, so a converted model carries these too. Transformers 5 folds them
into ``rope_parameters`` again when it loads the config.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig


def legacy_rope(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the entries that older releases need to know the rotary embedding, as far as ``config`` has not got them.

    ``vars(config).update(legacy_rope(config))`` adds them; remove the same names to restore the config.

    Parameters
    ----------
    config
        Config of the decoder itself. It is not changed.

    Returns
    -------
    Empty where there is nothing to add: no rotary embedding, one for each kind of layer (Gemma 3), or a class
    whose older form has other names (GPT-NeoX).
    """
    rope = getattr(config, "rope_parameters", None) or {}
    if "rope_theta" not in rope or config.model_type.startswith("gpt_neox"):
        return {}
    entries = {"rope_theta": rope["rope_theta"]}
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        entries["partial_rotary_factor"] = rope["partial_rotary_factor"]
    if rope.get("rope_type", "default") != "default":
        entries["rope_scaling"] = {name: value for name, value in rope.items() if name not in entries}
    # In transformers 5.17 a class may keep a default of its own here, which the entry of rope_parameters overrules.
    return {name: value for name, value in entries.items() if vars(config).get(name, object()) != value}
