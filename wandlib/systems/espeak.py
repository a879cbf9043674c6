"""espeak-ng, which turns text into phonemes, out of the pip package."""

from __future__ import annotations

import logging

LOGGER = "wandlib.espeak"


def load_espeak() -> None:
    """Let phonemizer use the espeak-ng of the pip package.

    Raises
    ------
    ImportError
        Where phonemizer-fork or espeakng-loader is missing; the message gives the pip line.
    """
    try:
        import espeakng_loader
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise ImportError("text is read with espeak-ng: pip install phonemizer-fork espeakng-loader") from error
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    logging.getLogger(LOGGER).setLevel(logging.ERROR)  # a word that is read as two is no news here
