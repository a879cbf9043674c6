"""Systems by name: lazy, and with the one error for what cannot be loaded."""

from __future__ import annotations

import importlib
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_system import FakeSystem

from wandlib.systems import InputError, load_system, registry
from wandlib.systems.registry import TRAINING, tell_license


class Published(FakeSystem):
    """A system that needs a folder, as published ones do."""

    loaded: tuple[Any, ...]

    @classmethod
    def load(
        cls, folder: str | Path, *, device: Any = "cpu", dtype: Any = None, student: Any = True, beams: int = 1
    ) -> Published:
        system = cls()
        system.loaded = (folder, device, dtype, student, beams)
        return system


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("published_system")
    vars(module)["Published"] = Published
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.SYSTEMS, "published", "published_system:Published")


def test_everything_reaches_the_system(tmp_path: Path) -> None:
    system: Any = load_system("published", tmp_path, device="cpu", dtype=torch.bfloat16, student=False, beams=3)
    assert system.loaded == (tmp_path, torch.device("cpu"), torch.bfloat16, False, 3)


@pytest.mark.parametrize(
    ("name", "folder", "options", "words"),
    [
        ("maxi", None, {}, "no system named 'maxi': there is 'mini'"),
        ("published", None, {}, "published comes without weights: give the folder"),
        ("published", ".", {"voices": 2}, "published takes no voices: it takes folder, device, dtype, student, beams"),
        ("published", ".", {"device": "cuda:99"}, "no device 'cuda:99' here"),
    ],
)
def test_what_cannot_be_loaded(name: str, folder: str | None, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_system(name, folder, **options)


def test_every_entry_names_a_class_that_loads() -> None:
    for name, entry in registry.SYSTEMS.items():
        if name != "published":
            module, _, kind = entry.partition(":")
            assert getattr(importlib.import_module(module), kind).name == name


def test_the_license_of_weights_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tell_license.cache_clear()
    for name in [*TRAINING, *TRAINING, "mini"]:
        tell_license(name)
    told = {record.getMessage().partition(":")[0]: record.levelname for record in caplog.records}
    assert len(caplog.records) == len(TRAINING) == len(told)
    assert {name for name, level in told.items() if level == "INFO"} == {
        "weights of CosyVoice 2",
        "weights of NeuTTS Air",
    }
