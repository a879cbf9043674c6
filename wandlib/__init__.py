"""Text-to-speech that costs the same per step however long it speaks: WAND (arXiv 2604.08558), in the open.

student = wandlib.convert(model, window=32)       # any causal decoder of transformers, in place
speech = wandlib.load_system("mini").synthesize("Hello there.", attention="window")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from wandlib.accounting import attention_flops, cache_bytes
from wandlib.attention_mass import attention_mass, suggest_window
from wandlib.cache import WandCache
from wandlib.compiled import compile_step
from wandlib.convert import convert, full_attention, load, restore, set_window
from wandlib.profiling import profile
from wandlib.systems import InputError, Speech, SpeechSystem, Step, Trace, load_system

if TYPE_CHECKING:
    from wandlib.collator import WandCollator
    from wandlib.curriculum import WindowCurriculum
    from wandlib.distillation import DistillationLoss, skew_kl
    from wandlib.training import WandTrainer, WandTrainingArguments

__version__ = "0.1.0"

TRAINING = {
    "DistillationLoss": "distillation",
    "WandCollator": "collator",
    "WandTrainer": "training",
    "WandTrainingArguments": "training",
    "WindowCurriculum": "curriculum",
    "skew_kl": "distillation",
}
"""Imported when first used: speaking needs neither transformers' Trainer nor what it brings along."""

__all__ = [
    "DistillationLoss",
    "InputError",
    "Speech",
    "SpeechSystem",
    "Step",
    "Trace",
    "WandCache",
    "WandCollator",
    "WandTrainer",
    "WandTrainingArguments",
    "WindowCurriculum",
    "attention_flops",
    "attention_mass",
    "cache_bytes",
    "compile_step",
    "convert",
    "full_attention",
    "load",
    "load_system",
    "profile",
    "restore",
    "set_window",
    "skew_kl",
    "suggest_window",
]


def __getattr__(name: str) -> Any:
    if name not in TRAINING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"wandlib.{TRAINING[name]}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"wandlib.{name} needs {error.name}: pip install 'wandlib[train]'") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
