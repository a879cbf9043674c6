"""A tiny checkpoint of every system that has one, in its published layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_codec_lm

from wandlib.systems.cosyvoice2.tiny import write_tiny
from wandlib.systems.indextts import tiny as tiny_index
from wandlib.systems.sparktts import tiny as tiny_spark

WRITERS: dict[str, Callable[[Path], Any]] = {
    "cosyvoice2": write_tiny,
    "sparktts": tiny_spark.write_checkpoint,
    "indextts": tiny_index.write_checkpoint,
    "neutts": lambda folder: tiny_codec_lm.write("neutts", folder),
    "llasa": lambda folder: tiny_codec_lm.write("llasa", folder),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "cosyvoice2": {},
    "sparktts": {},
    "indextts": {"maximum_codes": 20},
    "neutts": {"transcript": "YOU."},
    "llasa": {"transcript": "YOU."},
}
"""What a call needs besides text and reference, or is kept short by."""
