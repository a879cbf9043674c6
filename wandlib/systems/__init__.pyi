from .base import SpeechSystem
from .registry import load_system
from .settings import InputError
from .speech import Speech, Step, Trace

__all__ = ["InputError", "Speech", "SpeechSystem", "Step", "Trace", "load_system"]
