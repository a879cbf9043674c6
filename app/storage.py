"""A private folder for everything that visitors leave: gone when the app ends, however it ends.

Recordings and sounds lie in one folder below the system's temporary one, readable by this user alone. It is removed
when the process ends, by Ctrl-C, SIGTERM or the end of its terminal as well. After a kill -9 or a power cut it stays:
the next app to start removes it. Which folders have lost their owner is told by a lock that the kernel releases with
the process.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

PREFIX = "wandlib-app-"
LOCK = "owner.lock"
UPLOADS = "gradio"
"""Subfolder of recordings: those that arrived whole lie in folders of their own, which gradio removes."""
LIBRARIES = "libraries"
"""Subfolder for what is no visitor's."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """Create the folder, point gradio and :mod:`tempfile` to it, and empty it at the end; enter before gradio loads.

    SIGTERM and SIGHUP become SystemExit, so that a stopped container or service and a closed terminal clean up as
    Ctrl-C does. A SIGHUP that is ignored, as under nohup, stays so.
    """
    sweep()
    before = tempfile.tempdir
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    # Libraries remove temporary folders of their own at exit, and complain where they are gone: the last one goes then.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    handlers = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, _exit)
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            os.environ["GRADIO_TEMP_DIR"] = str(folder / UPLOADS)
            (folder / LIBRARIES).mkdir()
            tempfile.tempdir = str(folder / LIBRARIES)
            yield folder
        finally:
            for number in handlers:
                signal.signal(number, signal.SIG_IGN)  # a second one must not cut the cleaning short
            tempfile.tempdir = before
            os.environ.pop("GRADIO_TEMP_DIR", None)
            for entry in folder.iterdir():
                if entry.name not in (LOCK, LIBRARIES):
                    shutil.rmtree(entry, ignore_errors=True)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def sweep() -> list[Path]:
    """Remove this user's folders whose owner is gone; return them."""
    removed = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
            continue
        try:
            with (folder / LOCK).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
        except BlockingIOError:  # its app is running
            continue
        except FileNotFoundError:  # another app that starts was faster
            continue
        removed.append(folder)
    return removed


def drop_broken_uploads(folder: Path, age: float) -> None:
    """Remove recordings whose upload broke off ``age`` seconds ago; gradio leaves them behind."""
    for path in (folder / UPLOADS).glob("*"):
        with suppress(FileNotFoundError):  # it arrived after all
            if path.is_file() and time.time() - path.stat().st_mtime > age:
                path.unlink()


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
