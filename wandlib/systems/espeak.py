"""espeak-ng, which turns text into phonemes, out of the pip package."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator

LOGGER = "wandlib.espeak"
ADDRESSES = "rfc3987_syntax"
"""Syntax of web addresses, an option of jsonschema, which comes with phonemizer; its grammar takes 2.5 s to compile."""

ONE_READER = threading.Lock()
"""espeak-ng keeps its state in one place for the whole process: hold this while it reads."""


def load_espeak() -> None:
    """Let phonemizer use the espeak-ng of the pip package.

    Raises
    ------
    ImportError
        Where phonemizer-fork or espeakng-loader is missing; the message gives the pip line.
    """
    try:
        import espeakng_loader

        with _left_out(ADDRESSES):
            from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise ImportError("text is read with espeak-ng: pip install phonemizer-fork espeakng-loader") from error
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    logging.getLogger(LOGGER).setLevel(logging.ERROR)  # a word that is read as two is no news here


@contextlib.contextmanager
def _left_out(module: str) -> Iterator[None]:
    """Let imports do without a module that is not yet loaded."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # importing it is an ImportError
    try:
        yield
    finally:
        del sys.modules[module]
