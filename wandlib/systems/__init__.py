"""Text-to-speech systems on one code path: the embedded voice, and what is to follow it."""

from __future__ import annotations

from pathlib import Path

from wandlib.systems.base import InputError, Speech, SpeechSystem, Step, Trace

__all__ = ["InputError", "Speech", "SpeechSystem", "Step", "Trace", "load_system"]


def load_system(name: str = "mini", folder: str | Path | None = None, *, student: bool = True) -> SpeechSystem:
    """A ready text-to-speech system.

    Parameters
    ----------
    name
        "mini": the embedded voice, shipped with the package.
    folder
        Weights in the same layout as the shipped ones; None: the shipped ones.
    student
        Speak with the weights trained for the window where attention="window"; False: with the teacher's own.

    Raises
    ------
    InputError
        For a name that is not a system.
    FileNotFoundError
        Where the weights are missing.
    """
    if name == "mini":
        from wandlib.systems.mini import MiniSystem

        return MiniSystem.load(folder, student=student)
    raise InputError(f"no system named {name!r}: there is 'mini'")
