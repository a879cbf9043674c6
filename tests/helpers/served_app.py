"""An app that is running, for the tests of the app."""

from __future__ import annotations

import socket
from typing import Any

from gradio_client import Client

from app.page import build_app, launch
from app.tabs.compare import QUANTITIES

TEXT = "hello there good world"


class Served:
    """An app that is running, its system and its address."""

    def __init__(self, system: Any) -> None:
        self.system = system
        self.page = build_app(system)
        self.address = launch(self.page, "127.0.0.1", free_port())
        self.client = Client(self.address, verbose=False)

    def compare(
        self, text: Any = TEXT, speaker: Any = "low", recording: Any = None, **settings: Any
    ) -> tuple[Any, ...]:
        """What the page's button does."""
        return tuple(self.submit(text, speaker, recording, **settings).result(timeout=60))

    def submit(self, text: Any = TEXT, speaker: Any = "low", recording: Any = None, **settings: Any) -> Any:
        window, seed = settings.get("window", 8), settings.get("seed", 0)
        temperature = settings.get("temperature", "default")
        return self.client.submit(text, speaker, recording, window, seed, temperature, api_name="/compare")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def rows(numbers: dict[str, Any]) -> list[dict[str, str]]:
    assert numbers["headers"] == list(QUANTITIES)
    return [dict(zip(numbers["headers"], row, strict=True)) for row in numbers["data"]]
