"""The rotary embedding in a saved config, for older releases of transformers and for this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import LANGUAGE_MODELS, SHAPE, Tiny
from transformers import AutoConfig, GPTNeoXConfig, LlamaConfig, PhiConfig, Qwen2Config

from wandlib.attention.legacy_rope import legacy_rope

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def saved(config: Any, folder: Path) -> dict[str, Any]:
    config.save_pretrained(folder)
    stored: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return stored


def test_the_base_of_a_qwen2_stands_where_older_releases_look(tmp_path: Path) -> None:
    """Qwen2Config of transformers 4.51 takes rope_theta=10000.0 and nothing from rope_parameters."""
    config = Qwen2Config(rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    assert "rope_theta" not in saved(config, tmp_path)
    assert legacy_rope(config) == {"rope_theta": 1e6}
    vars(config).update(legacy_rope(config))
    assert saved(config, tmp_path)["rope_theta"] == 1e6
    assert legacy_rope(config) == {}


def test_scaling_and_partial_rotation_stand_there_too() -> None:
    """As in the config.json of Llama 3.1 and of Phi-2, which predate transformers 5."""
    scaling = {name: value for name, value in LLAMA3.items() if name != "rope_theta"}
    entries = legacy_rope(LlamaConfig(**SHAPE, rope_parameters=LLAMA3))
    assert entries == {"rope_theta": 5e5, "rope_scaling": scaling}
    phi = PhiConfig(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.4})
    assert legacy_rope(phi) == {"rope_theta": 1e4, "partial_rotary_factor": 0.4}


def loaded(config: Any, folder: Path) -> dict[str, Any]:
    config.save_pretrained(folder)
    again: dict[str, Any] = AutoConfig.from_pretrained(folder).to_dict()
    return again


@pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
def test_loaded_again_the_config_is_the_same(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config()
    before = loaded(config, tmp_path)
    vars(config).update(legacy_rope(config))
    assert loaded(config, tmp_path) == before


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama3", LLAMA3),
        ("linear", {"factor": 2.0}),
        ("yarn", {"factor": 4.0, "original_max_position_embeddings": 64}),
    ],
)
def test_loaded_again_a_scaled_embedding_is_the_same(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    config = LlamaConfig(**SHAPE, rope_parameters={"rope_type": kind, "rope_theta": 7e4} | options)
    before = loaded(config, tmp_path)
    vars(config).update(legacy_rope(config))
    assert "rope_scaling" in vars(config)
    assert loaded(config, tmp_path) == before


def test_nothing_to_add() -> None:
    gpt2, gemma3 = (next(tiny for tiny in LANGUAGE_MODELS if tiny.name == name) for name in ("gpt2", "gemma3"))
    for config in (gpt2.config(), gemma3.config(), GPTNeoXConfig()):
        assert legacy_rope(config) == {}
