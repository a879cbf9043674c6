"""A GPU whose memory runs out, said with the cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wandlib.systems.settings import InputError

SPEAKING = (
    "load with dtype=torch.bfloat16 (half the memory for the language model), speak shorter parts or fewer texts at "
    "once, or use device='cpu'"
)


@contextmanager
def explained_memory(cure: str = SPEAKING) -> Iterator[None]:
    """Turn CUDA's out-of-memory error into an InputError with the cure, until the block ends."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(f"the GPU has too little memory: {cure}") from error
