"""The data of ``wandlib train``: a .jsonl file, an utterance a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from wandlib.distillation.collator import WandCollator
from wandlib.distillation.losses import IGNORE_INDEX
from wandlib.systems import InputError

FORM = '{"input_ids": [12, 7, 31], "conditioning": 2}'

SAME = "all need the same, to be in one batch"


class Utterances:
    """The utterances of a .jsonl file: all checked at once, then each read when training asks for it.

    Parameters
    ----------
    path
        An utterance a line, as :class:`wandlib.distillation.collator.WandCollator` takes them; a tensor is
        ``{"file": name, "tensor": key}``, in a .safetensors file beside this one.
    limits
        The decoder's config: its vocabulary, and its positions if they end.

    Raises
    ------
    InputError
        If there are none, or one cannot be trained on; the message names file and line.
    """

    def __init__(self, path: Path, limits: Any) -> None:
        self.path = path
        self.starts: list[int] = []
        """Where each utterance begins, in bytes."""
        collator = WandCollator(max_length=getattr(limits, "max_position_embeddings", None))
        vocabulary = getattr(limits, "input_size", limits.vocab_size)
        tensors, first = Tensors(path.parent), list[str]()
        start = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        names = check_utterance(line, collator, vocabulary, tensors)
                        if names != (first := first or names):
                            raise ValueError(f"it has {', '.join(names)}, and the first {', '.join(first)}: {SAME}")
                    except ValueError as error:
                        # The collator speaks of batches, which this user has not made.
                        problem = str(error).replace("utterance 0 of the batch", "it", 1)
                        raise InputError(f"line {number} of {str(path)!r}: {problem}") from error
                    self.starts.append(start)
                start += len(line)
        if not self.starts:
            raise InputError(f"no utterances in {str(path)!r}: write one a line, like {FORM}")

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with self.path.open("rb") as file:
            file.seek(self.starts[index])
            sample: dict[str, Any] = json.loads(file.readline())
        for name, value in sample.items():
            if isinstance(value, dict):
                with safe_open(self.path.parent / value["file"], "pt") as stored:
                    sample[name] = stored.get_tensor(value["tensor"])
        return sample


class Tensors:
    """The tensors in the files of a folder; which a file holds is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: dict[str, set[str]] = {}

    def check(self, name: str, place: dict[str, Any]) -> None:
        """Raise ValueError unless ``{"file": name, "tensor": key}`` is there."""
        file, key = place.get("file"), place.get("tensor")
        if not isinstance(file, str) or not (self.folder / file).is_file():
            raise ValueError(f"{name} is in {file!r}, which is not in {str(self.folder)!r}: prepare it again")
        if file not in self.keys:
            try:
                with safe_open(self.folder / file, "pt") as stored:
                    self.keys[file] = set(stored.keys())
            except SafetensorError as error:
                raise ValueError(f"{name} is in {file!r}, which cannot be read ({error}): prepare it again") from error
        if not isinstance(key, str) or key not in self.keys[file]:
            raise ValueError(f"{name} is the tensor {key!r}, which is not in {file!r}: prepare it again")


def check_utterance(line: bytes, collator: WandCollator, vocabulary: int, tensors: Tensors) -> list[str]:
    """Return the names of what is made of a line; raise ValueError unless it is an utterance to train on."""
    try:
        sample = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error}): write one utterance a line, like {FORM}") from error
    if not isinstance(sample, dict):
        raise ValueError(f"it is a {type(sample).__name__}, not an object: write one utterance a line, like {FORM}")
    for name, also in (("input_ids", ()), ("labels", (IGNORE_INDEX,))):
        tokens = sample.get(name, [])
        if not isinstance(tokens, list):
            raise ValueError(f"{name} must be a list of tokens, got {tokens!r}")
        for token in tokens:
            if type(token) is not int or not (0 <= token < vocabulary or token in also):
                raise ValueError(f"{token!r} in {name} is no token of this model: they go from 0 to {vocabulary - 1}")
    given = sample.get("conditioning", 0)
    prefix = type(given) is int and given >= 0
    if not prefix and not (isinstance(given, list) and all(type(kind) is bool for kind in given)):
        raise ValueError(f"conditioning must be a number of tokens, or true or false for each; got {given!r}")
    if "position_ids" in sample:
        check_positions(sample["position_ids"])
    for name, value in sample.items():
        if isinstance(value, dict):
            tensors.check(name, value)
    plain = {name: value for name, value in sample.items() if not isinstance(value, dict)}  # tensors come later
    return sorted({*collator([plain]), *(sample.keys() - plain.keys())})


def check_positions(positions: Any) -> None:
    """Raise ValueError unless these are whole numbers from 0, written in the line, where they can be checked."""
    whole = isinstance(positions, list) and all(type(position) is int and position >= 0 for position in positions)
    if not whole:
        raise ValueError(f"position_ids must be a list of whole numbers from 0, got {positions!r}")
