"""CosyVoice 2: text and a reference to speech, on torch and transformers alone.

text -> parts -> text tokens -> **language model** -> codes -> flow -> mel spectrogram -> vocoder -> sound

The window is applied to the language model; everything after it sees codes only.
"""

from __future__ import annotations

from wandlib.systems.cosyvoice2.configuration import CosyVoice2Config
from wandlib.systems.cosyvoice2.language_model import CosyVoice2LM
from wandlib.systems.cosyvoice2.llm_weights import export_llm
from wandlib.systems.cosyvoice2.sampling import MinimumLength, RepetitionAware, RepetitionAwareSampling
from wandlib.systems.cosyvoice2.system import CosyVoice2System

__all__ = [
    "CosyVoice2Config",
    "CosyVoice2LM",
    "CosyVoice2System",
    "MinimumLength",
    "RepetitionAware",
    "RepetitionAwareSampling",
    "export_llm",
]
