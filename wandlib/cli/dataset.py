"""The data of ``wandlib train``: a .jsonl file, an utterance a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from wandlib.distillation.collator import WandCollator
from wandlib.distillation.losses import IGNORE_INDEX
from wandlib.systems import InputError

FORM = '{"input_ids": [12, 7, 31], "conditioning": 2}'


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
        vocabulary, files = getattr(limits, "input_size", limits.vocab_size), set[str]()
        start = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        check_utterance(line, collator, vocabulary)
                        check_files(line, path.parent, files)
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


def check_files(line: bytes, folder: Path, known: set[str]) -> None:
    """Raise ValueError unless the files are there that a line's tensors are in; ``known`` are those that were found."""
    for name, value in json.loads(line).items():
        if isinstance(value, dict) and value.get("file") not in known:
            if not isinstance(value.get("file"), str) or not (folder / value["file"]).is_file():
                raise ValueError(
                    f"{name} is in {value.get('file')!r}, which is not in {str(folder)!r}: prepare it again"
                )
            known.add(value["file"])


def check_utterance(line: bytes, collator: WandCollator, vocabulary: int) -> None:
    """Raise ValueError unless this line is an utterance to train on."""
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
    collator([{name: value for name, value in sample.items() if not isinstance(value, dict)}])  # tensors come later
