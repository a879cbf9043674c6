"""What training needs of a system: samples of recordings, its language model, and the way back into its own files.

A system supplies one subclass in its own folder and a line in :data:`wandlib.systems.registry.TRAINING`; then
``wandlib prepare``, ``train`` and ``export`` know it by name. Nothing of them names a system.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import soundfile
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from wandlib.systems.corpora import Recording
from wandlib.systems.model_card import Base
from wandlib.systems.settings import InputError, check_text

NOTE = "training.json"
"""What ``wandlib train`` writes beside a student: the system, its checkpoint, the data, the settings."""
NO_OTHER = 'no other recording of its speaker (in a .jsonl file, "speaker" says who it is)'
NO_AUDIO = "no audio that can be read"


Encoder = Callable[[list[Recording]], Iterator[dict[str, Any]]]
"""Recordings to samples for ``wandlib train``, one for each: either ``{"input_ids": [...], "conditioning": n}``, with
tensors besides where the model takes some, or ``{"skipped": reason, "audio": file}``."""


class RecordingEncoder(ABC):
    """An :data:`Encoder` that takes one recording after another."""

    maximum_seconds: ClassVar[float]
    """Longer recordings are left out."""

    def __call__(self, recordings: list[Recording]) -> Iterator[dict[str, Any]]:
        """Yield a sample for each recording, or ``{"skipped": reason, "audio": file}``."""
        for recording in recordings:
            try:
                made = read_recording(recording, self.maximum_seconds) or self.sample(recording)
            except InputError as error:
                made = str(error)
            yield made if isinstance(made, dict) else skipped(recording, made)

    @abstractmethod
    def sample(self, recording: Recording) -> dict[str, Any] | str:
        """Return what is trained on, or the reason why there is nothing; an InputError is such a reason, too."""


@dataclass(frozen=True)
class TenSeconds:
    """What ten seconds of speech are to the language model.

    Attributes
    ----------
    prompt
        Tokens of the prompt: the paper's mean where it has one, else an example.
    tokens
        Generated tokens.
    sequences
        Sequences decoded for one utterance.
    """

    prompt: int
    tokens: int
    sequences: int = 1


class SystemTraining(ABC):
    """What ``prepare``, ``train`` and ``export`` need of a system."""

    window: ClassVar[int]
    """Generated keys that a query sees, by default."""
    base: ClassVar[Base]
    """What a model card says of the system."""
    ten_seconds: ClassVar[TenSeconds]
    """What its costs are computed for."""
    files: ClassVar[str]
    """What ``export`` writes: the name of a file or folder."""

    @property
    def place(self) -> str:
        """What that takes the place of, in words."""
        return f"{self.files} of {self.base.repository}"

    @abstractmethod
    def check_folder(self, folder: str | Path) -> Path:
        """Return the published folder if it holds what :meth:`encoder` needs.

        Raises
        ------
        FileNotFoundError
            Naming the first file that is missing.
        InputError
            If it is another system's.
        """

    @abstractmethod
    def encoder(self, folder: str | Path, batch: int, device: str) -> Encoder:
        """Return what makes samples, with its networks loaded.

        Parameters
        ----------
        folder
            The published folder.
        batch
            Recordings in one run of a network, where it takes several.
        device
            Where the networks run.
        """

    @abstractmethod
    def config(self, folder: str | Path) -> PreTrainedConfig:
        """Return the config of the language model, without reading its weights."""

    @abstractmethod
    def language_model(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """Return the published language model, unconverted; what the loss does not reach needs no gradient."""

    @abstractmethod
    def export(self, student: Path, target: Path, original: Path | None) -> list[str]:
        """Write a student as the published code reads it; return what else there is to do, a line each.

        Parameters
        ----------
        student
            Folder that ``wandlib train`` wrote.
        target
            File or folder to write; it does not exist yet.
        original
            The published folder; None: not known.

        Raises
        ------
        InputError
            If the student is none of this system, or its numbers cannot be those of the original where nothing changed.
        """

    @abstractmethod
    def random_model(self) -> PreTrainedModel:
        """Return a language model of the published size with random weights, to know its costs."""


def read_recording(recording: Recording, maximum_seconds: float) -> str | None:
    """Return why a recording cannot be used, as far as text and header tell; None: it can be."""
    if not recording.text:
        return "no text"
    try:
        check_text(recording.text)
    except InputError:
        return "half of a character or NUL in its text, or another encoding than UTF-8"
    try:
        found = soundfile.info(recording.audio)
    except (OSError, TypeError, ValueError, soundfile.LibsndfileError):  # of a .raw, or a path that is none
        return NO_AUDIO
    if found.duration > maximum_seconds:
        return f"longer than {maximum_seconds:g} s"
    return None if found.frames else NO_AUDIO


def skipped(recording: Recording, reason: str) -> dict[str, Any]:
    """Return what stands in a shard for a recording that was left out."""
    return {"skipped": reason, "audio": str(recording.audio)}
