"""The tabs of the page: each is a file of its own here, and a line in :data:`TABS`."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from app.tabs import compare
from wandlib.systems.base import SpeechSystem

TABS: dict[str, Callable[[gr.Blocks, SpeechSystem], None]] = {
    "Compare": compare.build,
}
"""Title of a tab and the function that fills it: given the page, inside whose context it is called, and the system."""
