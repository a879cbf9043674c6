"""Speech to learn from: flite's free voices, warped into speakers of their own, in resumable shards.

One shard is ``NNNN.npy`` (16 kHz int16, utterances end to end) with ``NNNN.json`` (a list of {text, speaker, start,
end} in samples). Shards are written to a temporary name and renamed, so a killed run leaves no half shard, and the
next run goes on with the first one missing. Any other source of speech enters the recipe by writing the same shards
(:mod:`recipes.mini.human_speech`).

Install flite and wordnet-base (Debian package names) first.
"""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from tqdm import tqdm

from recipes.mini.sentences import passages
from wandlib.systems.mini.reference import levelled, without_silence

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class FliteSpeaker:
    """A flite voice with its vocal tract shortened by ``warp`` and its pitch set: a new speaker.

    Speech is synthesised ``warp`` times slower and lower, then read ``warp`` times faster: pitch and tempo come out as
    asked, and the formants stand ``warp`` times higher. The voice rms has a pitch of its own that cannot be set: None.
    """

    name: str
    voice: str
    pitch_hz: float | None
    warp: float
    stretch: float

    def speak(self, text: str) -> NDArray[np.float32]:
        """The text as 16 kHz samples."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            command = ["flite", "-voice", self.voice, "--setf", f"duration_stretch={self.stretch * self.warp:.3f}"]
            if self.pitch_hz is not None:
                command += ["--setf", f"int_f0_target_mean={self.pitch_hz / self.warp:.1f}"]
            command += ["-t", text, "-o", str(path)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            samples, rate = soundfile.read(path, dtype="float32")
        return soxr.resample(samples, rate * self.warp, SAMPLE_RATE)


SPEAKERS = (
    FliteSpeaker("clara", "slt", 175, 0.94, 1.15),
    FliteSpeaker("ruth", "slt", 155, 0.88, 1.10),
    FliteSpeaker("peter", "rms", None, 1.18, 1.12),
    FliteSpeaker("felix", "kal16", 150, 1.12, 1.20),
    FliteSpeaker("henry", "rms", None, 1.00, 1.12),
    FliteSpeaker("angus", "awb", 130, 1.00, 1.12),
    FliteSpeaker("victor", "kal16", 120, 1.00, 1.20),
)


def prepare(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Cut the silence at both ends, set the level, and store in 16 bits."""
    trimmed = without_silence(samples)
    if not len(trimmed):
        raise ValueError("nothing but silence")
    return (np.clip(levelled(trimmed), -1, 1) * 32767).astype(np.int16)


def synthesise_one(job: tuple[str, FliteSpeaker]) -> tuple[str, str, NDArray[np.int16]]:
    """Speak one job; a text that flite cannot finish comes back empty and is left out of the shard."""
    text, speaker = job
    try:
        return text, speaker.name, prepare(speaker.speak(text))
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError, ValueError):
        return text, speaker.name, np.zeros(0, np.int16)


def write_shard(folder: Path, index: int, utterances: Iterable[tuple[str, str, NDArray[np.int16]]]) -> float:
    """Store (text, speaker, samples) rows as shard ``index``; returns its hours of speech."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    pieces: list[NDArray[np.int16]] = []
    position = 0
    for text, speaker, samples in utterances:
        if not len(samples):
            continue
        entries.append({"text": text, "speaker": speaker, "start": position, "end": position + len(samples)})
        pieces.append(samples)
        position += len(samples)
    target = folder / f"{index:04d}.npy"
    partial = target.with_name(f"{index:04d}.partial.npy")
    np.save(partial, np.concatenate(pieces))
    # The list goes first: a shard counts as done when its samples stand under their final name.
    target.with_suffix(".json").write_text(json.dumps(entries), encoding="utf-8")
    partial.replace(target)
    return position / SAMPLE_RATE / 3600


@dataclass(frozen=True)
class Utterance:
    """One line of a shard. ``samples`` reads from disk when asked."""

    text: str
    speaker: str
    path: Path
    start: int
    end: int

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / SAMPLE_RATE

    @property
    def samples(self) -> NDArray[np.float32]:
        """16 kHz, full scale 1."""
        return _open(self.path)[self.start : self.end].astype(np.float32) / 32768


@functools.lru_cache(maxsize=256)
def _open(path: Path) -> NDArray[np.int16]:
    return np.load(path, mmap_mode="r")


def read_shards(folder: Path, pattern: str = "[0-9][0-9][0-9][0-9].npy") -> list[Utterance]:
    """Every utterance of the shards under ``folder`` whose name fits ``pattern``, in order.

    Raises
    ------
    FileNotFoundError
        Where there are no shards.
    """
    found = []
    for path in sorted(folder.glob(pattern)):
        for entry in json.loads(path.with_suffix(".json").read_text(encoding="utf-8")):
            found.append(Utterance(path=path, **entry))
    if not found:
        raise FileNotFoundError(f"no shards in {folder}: run `python -m recipes.mini corpus` first")
    return found


def build(
    folder: Path, hours: float, held_out: list[str], seed: int = 0, workers: int = 2, per_shard: int = 240
) -> None:
    """Fill ``folder`` with ``hours`` of speech, resuming at the first missing shard."""
    if shutil.which("flite") is None:
        raise FileNotFoundError(
            "flite is not installed: install the Debian package flite (and wordnet-base), then run again"
        )
    jobs = make_jobs(passages(seed, held_out))
    done = 0.0
    progress = tqdm(total=hours, unit="h", desc="corpus", bar_format="{l_bar}{bar}| {n:.2f}/{total:.0f} h [{elapsed}]")
    with get_context("spawn").Pool(workers) as pool:
        for index in itertools.count():
            batch = list(itertools.islice(jobs, per_shard))
            shard = folder / f"{index:04d}.npy"
            if shard.exists():
                added = len(_open(shard)) / SAMPLE_RATE / 3600
            else:
                added = write_shard(folder, index, pool.imap(synthesise_one, batch, chunksize=8))
            done += added
            progress.update(min(added, hours - progress.n))
            if done >= hours:
                break
    progress.close()


def make_jobs(texts: Iterator[str]) -> Iterator[tuple[str, FliteSpeaker]]:
    """Speakers take turns, so that every shard holds all of them."""
    return zip(texts, itertools.cycle(SPEAKERS), strict=False)
