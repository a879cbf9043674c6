"""Training shards at the voice's own rate, from the recipe's speech.

One shard is ``NNNN.npy`` (int16, utterances end to end) with ``NNNN.json`` (a list of {text, speaker, start, end} in
samples, and what is known beside: the speed, the source of the text, the passage and the place in it). Shards are
written to a temporary name and renamed, so a killed run leaves no half shard, and the next run goes on with the first
one missing. Any other source of speech enters the recipe by writing the same shards (:mod:`recipes.mini.human_speech`).
A shard may have no samples but the spectra that analysis would make of them (:mod:`recipes.mini.spectra`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from recipes.mini.files import whole, write_json
from recipes.mini.hearing import well_spoken
from recipes.mini.pool import each
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.reference import leveled, without_silence

HELD_OUT = 200
"""Utterances at the start of the corpus that no training hears."""
DETAILS = ("speed", "source", "passage", "place")
"""What a shard of speech tells of an utterance beside its text, speaker and samples."""


def prepare(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Cut the silence at both ends, set the level, and store in 16 bits."""
    trimmed = without_silence(samples)
    if not len(trimmed):
        raise ValueError("nothing but silence")
    return (np.clip(leveled(trimmed), -1, 1) * 32767).astype(np.int16)


def write_shard(
    folder: Path,
    index: int,
    utterances: Iterable[tuple[str, str, NDArray[np.int16]]],
    details: Sequence[Mapping[str, Any]] | None = None,
) -> float:
    """Store (text, speaker, samples) rows as shard ``index``, empty ones left out; returns its hours of speech."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    pieces: list[NDArray[np.int16]] = []
    position = 0
    for number, (text, speaker, samples) in enumerate(utterances):
        if not len(samples):
            continue
        known = {} if details is None else dict(details[number])
        entries.append({"text": text, "speaker": speaker, "start": position, "end": position + len(samples)} | known)
        pieces.append(samples)
        position += len(samples)
    target = folder / f"{index:04d}.npy"
    # The list goes first: a shard counts as done when its samples stand under their final name.
    write_json(target.with_suffix(".json"), entries)
    with whole(target) as partial:
        np.save(partial, np.concatenate([np.zeros(0, np.int16), *pieces]))
    return position / SAMPLE_RATE / 3600


@dataclass(frozen=True)
class Utterance:
    """One line of a shard. ``samples`` reads from disk when asked."""

    text: str
    speaker: str
    path: Path
    start: int
    end: int
    speed: float = 1.0
    source: str = ""
    passage: int = -1
    """Number of the passage that the speaker reads, -1 where there is none."""
    place: int = 0
    """In the passage."""

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / SAMPLE_RATE

    @property
    def has_sound(self) -> bool:
        """Whether there are samples; of some speech there are spectra alone (:mod:`recipes.mini.spectra`)."""
        return self.path.exists()

    @property
    def samples(self) -> NDArray[np.float32]:
        """At the voice's rate, full scale 1."""
        return _open(self.path)[self.start : self.end].astype(np.float32) / 32768


@functools.lru_cache(maxsize=256)
def _open(path: Path) -> NDArray[np.int16]:
    return np.load(path, mmap_mode="r")


def read_shards(folder: Path, pattern: str = "[0-9][0-9][0-9][0-9]") -> list[Utterance]:
    """Every utterance of the shards under ``folder`` whose number fits ``pattern``, in order.

    Raises
    ------
    FileNotFoundError
        Where there are no shards.
    """
    found = []
    shards = {path.name.split(".")[0] for kind in (".npy", ".mel.npy") for path in folder.glob(pattern + kind)}
    for path in (folder / f"{shard}.npy" for shard in sorted(shards)):
        for entry in json.loads(path.with_suffix(".json").read_text(encoding="utf-8")):
            found.append(Utterance(path=path, **entry))
    if not found:
        raise FileNotFoundError(f"no shards in {folder}: run `python -m recipes.mini speech hearing corpus` first")
    return found


def convert_shard(job: tuple[Path, Path]) -> float:
    """Write the training shard of one shard of speech; returns its hours."""
    source, folder = job
    sound, rate = soundfile.read(source, dtype="float32")
    entries = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))["utterances"]
    rows, details = [], []
    for entry, good in zip(entries, well_spoken(source, entries), strict=True):
        samples = np.zeros(0, np.int16)
        if good:
            samples = prepare(soxr.resample(sound[entry["start"] : entry["end"]], rate, SAMPLE_RATE))
        rows.append((entry["text"], entry["speaker"], samples))
        details.append({name: entry[name] for name in DETAILS})
    return write_shard(folder, int(source.stem), rows, details)


def build(speech: Path, folder: Path, workers: int = 2) -> None:
    """Training shards of all finished shards of speech; those that are there are kept.

    Raises
    ------
    FileNotFoundError
        Where there is no speech.
    ValueError
        Where speech was added to a corpus that goes on without sound.
    """
    sources = sorted(speech.glob("[0-9][0-9][0-9][0-9].flac"))
    if not sources:
        raise FileNotFoundError(f"no speech in {speech}: run `python -m recipes.mini speech` first")
    jobs = [(path, folder) for path in sources if not (folder / f"{path.stem}.npy").exists()]
    for path, _ in jobs:
        if (folder / f"{path.stem}.mel.npy").exists():
            raise ValueError(f"{folder} has spectra in place of {path}, which was spoken since: remove {folder}")
    list(each(convert_shard, jobs, workers, "corpus"))
