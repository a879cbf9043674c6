"""Sound as it is made, and results for an hour: files in a folder, and the addresses that serve them.

``/wand/live/<run>/<side>`` sends 16-bit samples from the first one on, as they come, until the side has ended;
``/wand/sound/<run>/<side>.wav`` the whole, ``/wand/trace/<run>.csv`` and ``.json`` what each step cost. A run's name
is drawn at random and cannot be guessed.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

KEPT_SECONDS = 3540
"""Their age is looked at once a minute: an hour at most."""
KEPT_RUNS = 8
"""For each visitor."""
ALL_RUNS = 400
"""For all together; the oldest go first."""
HEADER = 44
BLOCK = 65_536


@dataclass
class Saved:
    """The files of one run."""

    name: str
    folder: Path
    visitor: str
    rate: int
    born: float = field(default_factory=time.monotonic)
    open: dict[str, bool] = field(default_factory=dict)
    """Whether a side's sound may still grow, by the side's key."""
    entry: dict[str, Any] = field(default_factory=dict)
    """What the page's list says of it; empty until it has ended."""

    def pcm(self, side: str) -> Path:
        """Return the file of a side's samples."""
        return self.folder / f"{side}.pcm"

    def append(self, side: str, sound: NDArray[np.float32]) -> None:
        """Add to a side's sound: [samples] in [-1, 1]."""
        with self.pcm(side).open("ab") as file:
            file.write((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())

    def close(self, side: str) -> None:
        """End a side's sound."""
        self.open[side] = False


class SoundStore:
    """All runs of the last hour.

    Parameters
    ----------
    parent
        Where the folder of their files is made, with the first one; None: the system's temporary folder.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self.folder: Path | None = None
        self._parent = parent
        self._runs: dict[str, Saved] = {}
        self._lock = threading.Lock()

    def new(self, visitor: str, rate: int, sides: list[str]) -> Saved:
        """Begin a run; remove the visitor's oldest, and everybody's after an hour."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            if self.folder is None:
                self.folder = Path(tempfile.mkdtemp(prefix="wand-sounds-", dir=self._parent))
        run = Saved(name, self.folder / name, visitor, rate, open=dict.fromkeys(sides, True))
        run.folder.mkdir(parents=True)
        for side in sides:
            run.pcm(side).touch()
        with self._lock:
            self._runs[name] = run
            self._remove_old(visitor)
        return run

    def of(self, visitor: str) -> list[Saved]:
        """Return a visitor's runs that have ended, the newest first."""
        with self._lock:
            self._remove_old(visitor)
            return [run for run in reversed(self._runs.values()) if run.visitor == visitor and run.entry]

    def finish(self, run: Saved, entry: dict[str, Any], trace: dict[str, Any], table: str) -> None:
        """Store what a run has cost: ``trace`` as JSON, ``table`` as CSV."""
        for side in run.open:
            run.close(side)
        (run.folder / "trace.json").write_text(json.dumps(trace), encoding="utf-8")
        (run.folder / "trace.csv").write_text(table, encoding="utf-8")
        run.entry = entry

    def expire(self) -> None:
        """Remove what is older than an hour."""
        with self._lock:
            self._remove_old("")

    def drop(self, run: Saved) -> None:
        """Remove a run."""
        with self._lock:
            self._remove(run)

    def close(self) -> None:
        """Remove all runs."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_old(self, visitor: str) -> None:
        now, own = time.monotonic(), [run for run in self._runs.values() if run.visitor == visitor]
        old = [run for run in self._runs.values() if now - run.born > KEPT_SECONDS and not any(run.open.values())]
        for run in [*old, *own[:-KEPT_RUNS], *list(self._runs.values())[:-ALL_RUNS]]:
            self._remove(run)

    def _remove(self, run: Saved) -> None:
        self._runs.pop(run.name, None)
        for side in run.open:
            run.close(side)  # ends what is sent of it
        shutil.rmtree(run.folder, ignore_errors=True)

    def routes(self) -> list[BaseRoute]:
        """Return the addresses that serve the runs."""
        return [
            Route("/wand/live/{run}/{side}", self._live),
            Route("/wand/sound/{run}/{side}.wav", self._wav),
            Route("/wand/trace/{run}.{kind}", self._trace),
        ]

    def _find(self, request: Request, side: str | None = None) -> Saved | None:
        run = self._runs.get(request.path_params["run"])
        return run if run is not None and (side is None or side in run.open) else None

    async def _live(self, request: Request) -> Response:
        side = request.path_params["side"]
        run = self._find(request, side)
        if run is None:
            return Response("no such sound", 404)
        headers = {"cache-control": "no-store", "x-sample-rate": str(run.rate)}
        return StreamingResponse(_grow(run, side), media_type="application/octet-stream", headers=headers)

    async def _wav(self, request: Request) -> Response:
        side = request.path_params["side"]
        run = self._find(request, side)
        if run is None or not run.pcm(side).is_file():
            return Response("no such sound", 404)
        length = run.pcm(side).stat().st_size
        headers = {
            "content-length": str(HEADER + length),
            "content-disposition": f'attachment; filename="{side}.wav"',
        }
        return StreamingResponse(_wav(run, side, length), media_type="audio/wav", headers=headers)

    async def _trace(self, request: Request) -> Response:
        run, kind = self._find(request), request.path_params["kind"]
        if run is None or kind not in ("csv", "json") or not (run.folder / f"trace.{kind}").is_file():
            return Response("no such trace", 404)
        return FileResponse(run.folder / f"trace.{kind}", filename=f"trace.{kind}")


async def _grow(run: Saved, side: str) -> AsyncIterator[bytes]:
    """Send a file while it grows."""
    with run.pcm(side).open("rb") as file:
        while True:
            open_before = run.open[side]  # asked before reading: what came until it closed is read
            data = file.read(BLOCK)
            if data:
                yield data
            elif not open_before:
                return
            else:
                await asyncio.sleep(0.05)


async def _wav(run: Saved, side: str, length: int) -> AsyncIterator[bytes]:
    """Send a WAV file of 16-bit mono samples."""
    yield b"RIFF" + (36 + length).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    yield b"\1\0\1\0" + run.rate.to_bytes(4, "little") + (2 * run.rate).to_bytes(4, "little") + b"\2\0\x10\0"
    yield b"data" + length.to_bytes(4, "little")
    with run.pcm(side).open("rb") as file:
        sent = 0
        while sent < length and (data := file.read(min(BLOCK, length - sent))):
            sent += len(data)
            yield data
