"""A torch checkpoint read tensor by tensor, in the type that is wanted: in memory is what was asked for, and no more.

``torch.load`` brings all of a file into memory, or maps it, and what is then cast exists twice for a while. Here it
reads names, shapes and places alone (``FakeTensorMode``), and the numbers follow from the file, in pieces where they
are cast. Nothing in the file is run (``weights_only=True``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

PIECE = 1 << 20
"""Numbers that are cast at once."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in its file.

    Attributes
    ----------
    path, offset
        Where its first byte is.
    shape, dtype
        What it is.
    """

    path: Path
    offset: int
    shape: torch.Size
    dtype: torch.dtype

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        """Yield its numbers, flat and in order, with the place of the first; each is gone when the next one is read."""
        held = torch.empty(min(PIECE, self.count), dtype=self.dtype)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset)
            for start in range(0, self.count, PIECE):
                piece = held[: self.count - start]
                fill(file, piece)
                yield start, piece

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return it in memory, as ``dtype``; None: as it is."""
        made = torch.empty(self.shape, dtype=dtype or self.dtype)
        self.read_into(made)
        return made

    def read_into(self, target: Tensor) -> None:
        """Write its numbers over those of a contiguous tensor of the same shape."""
        flat = target.view(-1)
        if target.dtype == self.dtype:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.offset)
                fill(file, flat)
            return
        for start, piece in self.pieces():
            flat[start : start + len(piece)] = piece


Weight = Tensor | StoredTensor
"""A tensor, in memory or in its file."""


def fill(file: Any, target: Tensor) -> None:
    """Read as many bytes as ``target`` has into it; EOFError where the file ends before."""
    into: Any = target.view(torch.uint8).numpy()
    done = 0
    while done < len(into):
        read = file.readinto(memoryview(into[done:]))
        if not read:
            raise EOFError("the file ends within a tensor")
        done += read


def stored_tensors(path: Path) -> dict[str, Weight]:
    """Return the tensors of the state dict in a file, unread where it is a zip file, as every torch since 1.6 writes.

    Raises
    ------
    pickle.UnpicklingError
        If it holds anything that would run.
    RuntimeError, EOFError, OSError
        If it is damaged.
    TypeError
        If it holds no state dict.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        with FakeTensorMode():
            content = torch.load(path, map_location="cpu", weights_only=True)
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}, not a state dict")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    return {name: _stored(path, tensor) for name, tensor in tensors.items()} if zipped else dict(tensors)


def _stored(path: Path, tensor: Tensor) -> Weight:
    """Return where a tensor is; one whose numbers are not in a row in the file is read, with all around it."""
    storage: Any = tensor.untyped_storage()
    begin = storage._checkpoint_offset + tensor.storage_offset() * tensor.itemsize
    if tensor.is_contiguous():
        return StoredTensor(path, begin, tensor.shape, tensor.dtype)
    whole = StoredTensor(
        path, storage._checkpoint_offset, torch.Size([storage.nbytes() // tensor.itemsize]), tensor.dtype
    )
    return whole.read().as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).contiguous()


def read(weight: Weight, dtype: torch.dtype) -> Tensor:
    """Return a weight in memory, as ``dtype``."""
    return weight.read(dtype) if isinstance(weight, StoredTensor) else weight.to(dtype)


def read_into(weight: Weight, target: Tensor) -> None:
    """Write a weight over a contiguous tensor of the same shape."""
    if isinstance(weight, StoredTensor):
        weight.read_into(target)
    else:
        target.copy_(weight)


def equal(one: Weight, other: Weight) -> bool:
    """Return whether two weights are the same numbers."""
    if isinstance(one, StoredTensor) and isinstance(other, StoredTensor):
        if one == other or one.shape != other.shape or one.dtype != other.dtype:
            return one == other
        both = zip(one.pieces(), other.pieces(), strict=True)
        return all(torch.equal(mine, yours) for (_, mine), (_, yours) in both)
    mine, yours = (weight if isinstance(weight, Tensor) else weight.read() for weight in (one, other))
    return mine.data_ptr() == yours.data_ptr() or torch.equal(mine, yours)
