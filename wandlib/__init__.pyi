from .attention.cache.cache import WandCache
from .attention.compilation import compile_step
from .attention.conversion import convert, full_attention, load, restore, set_window
from .distillation.arguments import WandTrainingArguments
from .distillation.collator import WandCollator
from .distillation.curriculum import WindowCurriculum
from .distillation.divergences import skew_kl
from .distillation.losses import DistillationLoss
from .distillation.streams import StreamCollator, streams_of
from .distillation.trainer import WandTrainer
from .profiling.attention_mass import attention_mass, suggest_blocks, suggest_window
from .profiling.estimate import attention_flops, cache_bytes
from .profiling.measure import profile
from .systems.base import SpeechSystem
from .systems.registry import load_system
from .systems.settings import InputError
from .systems.speech import Speech, Step, Trace

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

__version__: str
