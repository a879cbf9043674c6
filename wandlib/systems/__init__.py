"""Text-to-speech systems on one code path: the embedded voice, and what else is in the registry."""

from __future__ import annotations

from wandlib.systems.base import InputError, Speech, SpeechSystem, Step, Trace
from wandlib.systems.registry import load_system

__all__ = ["InputError", "Speech", "SpeechSystem", "Step", "Trace", "load_system"]
