"""Text-to-speech that costs the same per step however long it speaks: WAND (arXiv 2604.08558), in the open.

student = wandlib.convert(model, window=32)       # any causal decoder of transformers, in place
speech = wandlib.load_system("mini").synthesize("Hello there.", attention="window")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.compilation import compile_step
from wandlib.attention.conversion import convert, full_attention, load, restore, set_window
from wandlib.profiling.attention_mass import attention_mass, suggest_blocks, suggest_window
from wandlib.profiling.estimate import attention_flops, cache_bytes
from wandlib.profiling.measure import profile
from wandlib.systems import InputError, Speech, SpeechSystem, Step, Trace, load_system

if TYPE_CHECKING:
    from wandlib.distillation.collator import WandCollator
    from wandlib.distillation.curriculum import WindowCurriculum
    from wandlib.distillation.divergences import skew_kl
    from wandlib.distillation.losses import DistillationLoss
    from wandlib.distillation.streams import StreamCollator, streams_of
    from wandlib.distillation.trainer import WandTrainer, WandTrainingArguments

__version__ = "0.1.0"

TRAINING = {
    "DistillationLoss": "distillation.losses",
    "StreamCollator": "distillation.streams",
    "WandCollator": "distillation.collator",
    "WandTrainer": "distillation.trainer",
    "WandTrainingArguments": "distillation.arguments",
    "WindowCurriculum": "distillation.curriculum",
    "skew_kl": "distillation.divergences",
    "streams_of": "distillation.streams",
}
"""Imported when first used: speaking needs neither transformers' Trainer nor what it brings along."""

__all__ = [
    "DistillationLoss",
    "InputError",
    "Speech",
    "SpeechSystem",
    "Step",
    "StreamCollator",
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
    "streams_of",
    "suggest_blocks",
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
