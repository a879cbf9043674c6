"""An app that is running, for the tests of the app."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import numpy as np
from gradio_client import Client
from numpy.typing import NDArray

from app.page import build_app, launch

TEXT = "hello there good world"
STATUS, PLAYER, NOTES, CURVES, TABLE, RESULT, NUMBERS, HISTORY = range(8)
"""Where each answer of a tab's handler is."""


class Served:
    """An app that is running, its system and its address."""

    def __init__(self, system: Any, **options: Any) -> None:
        self.system = system
        self.page = build_app(system, **options)
        self.address = launch(self.page, "127.0.0.1", free_port())
        self.client = Client(self.address, verbose=False)

    def compare(
        self, text: Any = TEXT, speaker: Any = "low", recording: Any = None, **settings: Any
    ) -> tuple[Any, ...]:
        """What the button of the first tab does."""
        return tuple(self.submit(text, speaker, recording, **settings).result(timeout=120))

    def submit(self, text: Any = TEXT, speaker: Any = "low", recording: Any = None, **settings: Any) -> Any:
        window, seed = settings.get("window", 8), settings.get("seed", 0)
        temperature, untrained = settings.get("temperature", "default"), settings.get("untrained", False)
        return self.client.submit(text, speaker, recording, window, seed, temperature, untrained, api_name="/compare")

    def sound(self, answer: tuple[Any, ...], side: str) -> tuple[NDArray[np.float32], int]:
        """Samples of a side, as they are downloaded, and their rate."""
        import io

        import soundfile

        content = httpx.get(self.address + answer[RESULT]["sides"][side]["wav"]).raise_for_status().content
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
        return samples, rate


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
