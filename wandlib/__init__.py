"""Text-to-speech that costs the same per step however long it speaks: WAND (arXiv 2604.08558), in the open.

student = wandlib.convert(model, window=32)       # any causal decoder of transformers, in place
speech = wandlib.load_system("mini").synthesize("Hello there.", attention="window")
"""

from wandlib.accounting import attention_flops, cache_bytes
from wandlib.attention_mass import attention_mass, suggest_window
from wandlib.cache import WandCache
from wandlib.convert import convert, full_attention, load, restore, set_window
from wandlib.profiling import profile
from wandlib.systems import InputError, Speech, SpeechSystem, Step, Trace, load_system

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "Speech",
    "SpeechSystem",
    "Step",
    "Trace",
    "WandCache",
    "attention_flops",
    "attention_mass",
    "cache_bytes",
    "convert",
    "full_attention",
    "load",
    "load_system",
    "profile",
    "restore",
    "set_window",
    "suggest_window",
]
