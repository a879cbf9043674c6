"""The tabs of the page: each is a file of its own here, and a line in :data:`TABS`."""

from __future__ import annotations

from collections.abc import Callable

from app.stage import Stage
from app.tabs import compare, endless, windows, your_model

TABS: dict[str, Callable[[Stage], None]] = {
    "Compare": compare.build,
    "Endless": endless.build,
    "Window": windows.build,
    "Your model": your_model.build,
}
"""Title of a tab and the function that fills it: given what the tabs share, inside the page's context."""
