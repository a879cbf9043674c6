"""What all tabs of a page share: the system, the queue, the stored sounds, and what is around the tabs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from app.runs import Desk
from app.sounds import SoundStore
from app.turns import Side
from wandlib.systems.base import SpeechSystem
from wandlib.systems.settings import Long

Untrained = Callable[[], SpeechSystem]
"""Loads the system with the teacher's weights in the student's place."""


@dataclass
class Stage:
    """One page and what is behind it; a tab is a function that is given one.

    Attributes
    ----------
    system
        The speech system that the page shows.
    page
        The page, inside whose context a tab is built.
    checkpoint
        Where the system's weights came from; None: shipped.
    untrained
        See :data:`Untrained`; None where the student is no trained one.
    folder
        Where sounds are stored meanwhile; None: the system's temporary folder.
    numbers, history
        The two large numbers and the list of earlier results, which each run changes.
    links
        For each tab that a repeat link may open: its text limit, and its controls by the name of the setting.
    """

    system: SpeechSystem
    page: gr.Blocks
    checkpoint: str | None = None
    untrained: Untrained | None = None
    folder: Path | None = None
    numbers: Any = None
    history: Any = None
    links: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.desk = Desk()
        self.store = SoundStore(self.folder)
        self._stops: dict[str, threading.Event] = {}
        self._loaded: SpeechSystem | None = None

    @property
    def reads_transcripts(self) -> bool:
        """Whether the system speaks better, or at all, if it is told what a recording says."""
        return any(each.name == "transcript" for each in fields(self.system.settings_type))

    def begin(self, visitor: str) -> threading.Event:
        """Return what stops the visitor's next run; an earlier one is stopped."""
        self.stop(visitor)
        self._stops[visitor] = threading.Event()
        return self._stops[visitor]

    def end(self, visitor: str, stop: threading.Event) -> None:
        """Forget a run that has ended."""
        stop.set()
        if self._stops.get(visitor) is stop:
            del self._stops[visitor]

    def stop(self, visitor: str) -> None:
        """Stop what the visitor runs, if anything."""
        if running := self._stops.get(visitor):
            running.set()

    def unread(self, visitor: str) -> int:
        """Return how many updates the visitor has not fetched; gradio keeps all of them."""
        updates = self.page._queue.pending_messages_per_session.get(visitor)
        return 0 if updates is None else updates.qsize()

    def load_untrained(self) -> SpeechSystem:
        """Return the untrained system, loaded when it is first asked for."""
        assert self.untrained is not None
        if self._loaded is None:
            self._loaded = self.untrained()
        return self._loaded

    def sides(self, window: int, *, with_untrained: bool) -> list[Side]:
        """Return teacher, student and, if wanted and there is one, the untrained window."""
        load = self.load_untrained if with_untrained and self.untrained is not None else None
        return three_sides(self.system, load, window, trained=self.untrained is not None)

    def close(self) -> None:
        """Stop what runs, and remove all sounds."""
        self.desk.close()
        self.store.close()


def three_sides(system: SpeechSystem, untrained: Untrained | None, window: int, *, trained: bool = True) -> list[Side]:
    """Return full attention, the window and, where it can be loaded, the window on the teacher's weights."""
    names = ("Teacher, full attention", "Student") if trained else ("Full attention", "Window")
    sides = [
        Side("full", names[0], system, "full"),
        Side("window", f"{names[1]}, W = {window}", system, "window", window),
    ]
    if untrained is not None:
        sides.append(Side("untrained", f"Untrained, W = {window}", untrained(), "window", window))
    return sides


def long_of(system: SpeechSystem) -> Long | None:
    """Return how all sides read a long text, which lets them compare: as the student does; None: as each does alone."""
    return "one cache" if getattr(system, "blocks", None) else None


def has_student(system: SpeechSystem) -> bool:
    """Tell whether the window runs on weights of its own, as a trained student does."""
    models = getattr(system, "models", None)
    if not models or models["full"] is models["window"]:
        return False
    full, window = (list(models[attention].parameters()) for attention in ("full", "window"))
    return len(full) != len(window) or not all(map(_equal, full, window))  # more of them: adapters


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
