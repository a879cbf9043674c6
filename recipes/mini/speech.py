"""Speech to learn from: Kokoro's speakers read free texts, 24 kHz, in resumable shards.

    python -m recipes.mini.speech --hours 3 --workers 2

One shard is ``NNNN.flac`` (utterances end to end) with ``NNNN.json``: for each utterance its text, speaker, speed,
start and end in samples, how much silence was cut before it, the source of its text, and its passage with its place
there. A passage is read by one speaker at one speed, so that streams of sentences in their natural order can be made.
Shards are written to a temporary name and renamed: a killed run leaves no half shard, and the next run goes on with the
first one missing. What is read, and by whom, depends on the seed alone; the speaker with the least text so far is the
next, so that every prefix of the corpus is balanced.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import itertools
import json
import os
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import typer
from numpy.typing import NDArray

from recipes.mini.downloads import AUSTEN, KOKORO_VOICES, sha256
from recipes.mini.kokoro import MODEL_DIGEST, SAMPLE_RATE, Kokoro
from recipes.mini.pool import Workers
from recipes.mini.sentences import HARVARD, WORDNET
from recipes.mini.speakers import SPEAKERS
from recipes.mini.texts import Passage, passages
from wandlib.systems.mini.reference import spoken_part

SPEEDS = {0.85: 1, 0.92: 2, 1.0: 6, 1.1: 2, 1.2: 1}
"""Speaking rates, and how often each is taken."""
PER_SHARD = 100
VOICES = {speaker.name: speaker.voice for speaker in SPEAKERS}


@dataclass(frozen=True)
class Job:
    """One utterance that is to be spoken."""

    text: str
    speaker: str
    speed: float
    source: str
    passage: int
    place: int
    """In the passage."""


Spoken = tuple[int, NDArray[np.int16]]
"""Samples of silence that were cut before it, and the sound."""
NOTHING: Spoken = (0, np.zeros(0, np.int16))


def jobs(texts: Iterator[Passage], seed: int) -> Iterator[Job]:
    """Who says what at which speed, without end."""
    rng = random.Random(f"{seed} speeds")
    spoken = dict.fromkeys(VOICES, 0.0)
    for number, passage in enumerate(texts):
        speaker = min(spoken, key=spoken.__getitem__)
        (speed,) = rng.choices(list(SPEEDS), list(SPEEDS.values()))
        spoken[speaker] += sum(map(len, passage.utterances)) / speed
        for place, text in enumerate(passage.utterances):
            yield Job(text, speaker, speed, passage.source, number, place)


@functools.cache
def kokoro() -> Kokoro:
    """Return the synthesizer, loaded once a process."""
    return Kokoro()


def speak(job: Job) -> Spoken:
    """Speak a job in 16 bits, silence at both ends cut; empty where Kokoro cannot say it, or loses its text."""
    try:
        whole = kokoro().speak(job.text, VOICES[job.speaker], job.speed)
    except ValueError:  # too many phones, or none
        return NOTHING
    part = spoken_part(whole, SAMPLE_RATE)
    sound = whole[part]
    if not keeps_pace(job, len(sound) / SAMPLE_RATE):
        return NOTHING
    return part.start, (np.clip(sound, -1, 1) * 32767).astype(np.int16)


def keeps_pace(job: Job, seconds: float) -> bool:
    """Return whether a job lasts about as long as its text should; short texts may take any time."""
    pace = len(job.text) / max(seconds, 1e-3) / job.speed
    return len(job.text) <= 40 or 5 < pace < 30  # characters a second; 14 are usual


def digest(batch: list[Job]) -> str:
    """Sum of what a shard is to hold."""
    described = [asdict(job) | {"voice": VOICES[job.speaker]} for job in batch]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def write_shard(folder: Path, index: int, batch: list[Job], sounds: Iterable[Spoken]) -> float:
    """Store shard ``index``; returns its seconds of speech."""
    entries: list[dict[str, Any]] = []
    pieces, position = [], 0
    for job, (cut, sound) in zip(batch, sounds, strict=True):
        if len(sound):
            entries.append(asdict(job) | {"start": position, "end": position + len(sound), "cut": cut})
            pieces.append(sound)
            position += len(sound)
    target = folder / f"{index:04d}.flac"
    partial = folder / f"{index:04d}.partial"
    soundfile.write(partial, np.concatenate(pieces), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    content = {"jobs": digest(batch), "left out": len(batch) - len(entries), "utterances": entries}
    # The list goes first: a shard counts as done when its sound has its final name.
    described = folder / f"{index:04d}.json.partial"
    described.write_text(json.dumps(content), encoding="utf-8")
    described.replace(target.with_suffix(".json"))
    partial.replace(target)
    return position / SAMPLE_RATE


def shard_seconds(folder: Path, index: int, batch: list[Job]) -> float | None:
    """Seconds of speech in shard ``index``; None where it is missing.

    Raises
    ------
    ValueError
        When it holds other texts or speakers.
    """
    target = folder / f"{index:04d}.flac"
    if not target.exists():
        return None
    content = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    if content["jobs"] != digest(batch):
        raise ValueError(f"{target} holds other texts or speakers than this recipe makes: choose another folder")
    return content["utterances"][-1]["end"] / SAMPLE_RATE


def finished(folder: Path) -> tuple[int, float]:
    """Count the shards of a folder, and their seconds of speech."""
    found = shards(folder)
    return len(found), sum(soundfile.info(path).duration for path in found)


def shards(folder: Path) -> list[Path]:
    """Return the shards of a folder, in order."""
    return sorted(folder.glob("[0-9][0-9][0-9][0-9].flac"))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder; a killed run keeps nobody out."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"another run is writing to {folder}: wait for it, or choose another folder") from error
        yield


def manifest(seed: int, per_shard: int) -> dict[str, Any]:
    """Describe what the speech is made from, with the sums of all files."""
    words = {path.name: sha256(path) for path in sorted(WORDNET.glob("data.*"))}
    return {
        "seed": seed,
        "utterances a shard": per_shard,
        "sample rate": SAMPLE_RATE,
        "speakers": VOICES,
        "speeds": SPEEDS,
        "synthesizer": "Kokoro-82M, 8-bit ONNX, Apache-2.0",
        "sha256": {"model": MODEL_DIGEST, KOKORO_VOICES.name: KOKORO_VOICES.digest, AUSTEN.name: AUSTEN.digest} | words,
    }


def build(folder: Path, hours: float, seed: int = 0, workers: int = 1, per_shard: int = PER_SHARD) -> None:
    """Fill ``folder`` with ``hours`` of speech, going on at the first shard that is missing.

    Raises
    ------
    ValueError
        When the folder holds shards of other texts or speakers.
    RuntimeError
        While another run is writing to the folder.
    """
    with locked(folder), contextlib.ExitStack() as stack:
        pool = stack.enter_context(Workers(workers)) if workers > 1 else None
        described = json.dumps(manifest(seed, per_shard), indent=2)
        (folder / "manifest.json").write_text(described, encoding="utf-8")
        todo, done, made, started = jobs(passages(seed, HARVARD), seed), 0.0, 0.0, time.monotonic()
        for index in itertools.count():
            batch = list(itertools.islice(todo, per_shard))
            seconds = shard_seconds(folder, index, batch)
            if seconds is None:
                sounds = pool.imap(speak, batch, chunksize=4) if pool else map(speak, batch)
                seconds = write_shard(folder, index, batch, sounds)
                made += seconds
                rate = made / (time.monotonic() - started)
                line = f"{time.strftime('%H:%M:%S')} shard {index:04d}: {(done + seconds) / 3600:.3f} of {hours:g} h"
                with (folder / "log.txt").open("a", encoding="utf-8") as log:
                    log.write(f"{line}, {rate:.2f} times real time\n")
            done += seconds
            if done >= 3600 * hours:
                break


def main(
    folder: Annotated[Path, typer.Option(envvar="WANDLIB_SPEECH", help="Where the speech goes.")] = Path(
        "runs/mini/speech"
    ),
    hours: Annotated[float, typer.Option(help="Hours to make.")] = 20.0,
    workers: Annotated[int, typer.Option(help="Processes, one thread each.")] = 1,
    seed: Annotated[int, typer.Option(help="Of texts, speeds and speakers.")] = 0,
) -> None:
    """Make speech, or go on where it stopped; ``log.txt`` in the folder tells how far it is."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    build(folder, hours, seed, workers)


if __name__ == "__main__":
    typer.run(main)
