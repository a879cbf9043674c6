"""From recordings and texts to what ``wandlib train`` reads: a line of ids for each utterance.

What a sample is, a system's :class:`~wandlib.systems.training.Encoder` knows. Here the work is cut into shards; a shard
that is complete has its final name, so that a run that was stopped goes on where it was; one that left out a recording
is made again when a file of that recording has come or changed. Shards are shared out among the processes of this
machine, and, under ``accelerate launch``, among machines.

A folder, when all is done::

    utterances.jsonl                        the training set
    prepare.json                            what it was made of
    shard-00000-of-00067.jsonl              the parts of it, with the recordings that were left out and why
    shard-00000-of-00067.safetensors        tensors of its samples (a voice's latents), where a system has any
"""

from __future__ import annotations

import json
import multiprocessing
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from wandlib.systems.corpora import Recording, find_recordings
from wandlib.systems.memory import explained_memory
from wandlib.systems.registry import training_of
from wandlib.systems.settings import InputError
from wandlib.systems.training import Encoder

NAME = "utterances.jsonl"
"""All shards together, written by the last process that finds them complete."""
NOTE = "prepare.json"
LESS_AT_ONCE = "fewer recordings at once (--batch-size), or device='cpu'"

Shard = tuple[Path, list[Recording]]
"""The file of a shard, and what goes into it."""


@dataclass(frozen=True)
class Prepared:
    """What a run made.

    Attributes
    ----------
    path
        The training set; None while other processes still work on it.
    utterances
        Samples in it, or in the shards that are complete.
    skipped
        How many recordings were left out, by reason.
    """

    path: Path | None
    utterances: int
    skipped: dict[str, int]


def prepare(
    system: str,
    folder: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    processes: int = 1,
    batch: int = 16,
    shard: int = 500,
    device: str = "cpu",
    progress: bool = True,
) -> Prepared:
    """Write the training set of a corpus.

    Parameters
    ----------
    system
        Name of the system, in :data:`wandlib.systems.registry.TRAINING`.
    folder
        Its published folder.
    data
        The corpus; see :mod:`wandlib.systems.corpora`.
    output
        Folder for the shards and, at the end, ``utterances.jsonl``. What is complete in it is kept.
    processes
        On this machine. Under ``accelerate launch`` each of its processes is one, and this has no effect.
    batch
        Recordings in one run of the networks.
    shard
        Recordings in a shard.
    device
        Where the networks run. Under ``accelerate launch``, "cuda" is the process's own GPU.
    progress
        Show a bar.

    Raises
    ------
    FileNotFoundError
        If a file is missing in the folder.
    InputError
        If system, folder or corpus cannot be used, or ``output`` holds shards of another corpus or cut.
    """
    for name, value in (("processes", processes), ("batch", batch), ("shard", shard)):
        if value < 1:
            raise InputError(f"{name} is at least 1, not {value}")
    training = training_of(system)
    training.check_folder(folder)
    recordings, target = find_recordings(Path(data).resolve()), Path(output)
    target.mkdir(parents=True, exist_ok=True)
    cut = {
        "system": system,
        "checkpoint": str(Path(folder).resolve()),
        "data": str(Path(data).resolve()),
        "recordings": len(recordings),
        "content": zlib.crc32(repr(recordings).encode()),
        "shard": shard,
    }
    claim(target, cut)
    total = -(-len(recordings) // shard)
    paths = [target / f"shard-{number:05d}-of-{total:05d}.jsonl" for number in range(total)]
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    shards = [(path, recordings[number * shard : (number + 1) * shard]) for number, path in enumerate(paths)]
    jobs = [(path, some) for path, some in shards[rank::world] if not is_done(path, some)]
    with tqdm(total=len(jobs), unit="shard", disable=not progress, desc="preparing") as bar:
        if processes == 1 or world > 1 or len(jobs) < 2:
            with explained_memory(LESS_AT_ONCE):
                encoder = training.encoder(folder, batch, device) if jobs else None
                for path, some in jobs:
                    assert encoder is not None
                    write_shard(encoder, path, some)
                    bar.update()
        else:
            threads = max(1, torch.get_num_threads() // processes)
            write = partial(_write, system, folder, batch, device)
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool:
                for _ in shared_out(pool, processes, write, jobs):
                    bar.update()
    return collect(target, paths)


def shared_out(pool: Executor, workers: int, work: Callable[[Shard], None], jobs: Iterable[Shard]) -> Iterator[None]:
    """Yield whenever a job is done. No worker has a second one waiting: an error or Ctrl-C leaves no queue behind."""
    waiting = iter(jobs)
    running = {pool.submit(work, job) for job in islice(waiting, workers)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
            running |= {pool.submit(work, job) for job in islice(waiting, 1)}
            yield


def claim(target: Path, settings: dict[str, Any]) -> None:
    """Note what the shards are of, or check that those in the folder are of the same.

    Raises
    ------
    InputError
        If they are of another corpus, checkpoint, system or cut, or a file of another origin would be replaced.
    """
    note = target / NOTE
    if not note.is_file() and (target / NAME).exists():
        raise InputError(
            f"{str(target / NAME)!r} is not of wandlib prepare, and would be replaced: choose another folder"
        )
    if note.is_file():
        try:
            earlier = json.loads(note.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{str(note)!r} is damaged ({error}): choose another folder") from error
        if earlier != settings:
            raise InputError(f"{str(target)!r} holds shards of {earlier}, this is {settings}: choose another folder")
        return
    unfinished = note.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(settings), encoding="utf-8")
    unfinished.replace(note)


@cache
def _encoder(system: str, folder: str | Path, batch: int, device: str) -> Encoder:
    """Load the networks, once in each process."""
    return training_of(system).encoder(folder, batch, device)


def _write(system: str, folder: str | Path, batch: int, device: str, shard: Shard) -> None:
    with explained_memory(LESS_AT_ONCE):
        write_shard(_encoder(system, folder, batch, device), *shard)


def files_of(recording: Recording) -> list[int | None]:
    """Return when each file of a recording was last put there or changed, in ns; None: there is no such file."""
    found: list[int | None] = []
    for one in (recording, recording.other):
        try:
            found.append(None if one is None else one.audio.stat().st_ctime_ns)
        except (OSError, ValueError):  # or no file can have that name
            found.append(None)
    return found


def is_done(path: Path, recordings: list[Recording]) -> bool:
    """Return whether a shard is complete, and the recordings that it left out are as they were."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8") as lines:
        noted = ((json.loads(line).get("files"), one) for line, one in zip(lines, recordings, strict=True))
        return all(files is None or files == files_of(one) for files, one in noted)


def write_shard(encoder: Encoder, path: Path, recordings: list[Recording]) -> None:
    """Write a shard under a name of its own, then give it its final one; its tensors come first."""
    beside, tensors = path.with_suffix(".safetensors"), dict[str, Tensor]()
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    files = list(map(files_of, recordings))  # before they are read: what comes meanwhile is looked at the next time
    with unfinished.open("w", encoding="utf-8") as file:
        for number, sample in enumerate(encoder(recordings)):
            line = dict(sample) | ({"files": files[number]} if "skipped" in sample else {})
            for name, value in sample.items():
                if isinstance(value, Tensor):
                    key = f"{number}.{name}"
                    tensors[key] = value.detach().cpu().contiguous()
                    line[name] = {"file": beside.name, "tensor": key}
            file.write(json.dumps(line) + "\n")
    if tensors:
        half_written = beside.with_suffix(f".{os.getpid()}.tensors.tmp")
        save_file(tensors, half_written)
        half_written.replace(beside)
    unfinished.replace(path)


def collect(target: Path, paths: list[Path]) -> Prepared:
    """Join the shards, if all are there, without the recordings that were left out.

    Raises
    ------
    InputError
        If nothing is left.
    """
    complete = all(path.is_file() for path in paths)
    skipped: Counter[str] = Counter()
    count, unfinished = 0, target / f"{NAME}.{os.getpid()}.tmp"
    with unfinished.open("w", encoding="utf-8") as file:
        for path in paths:
            if not path.is_file():
                continue
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    reason = json.loads(line).get("skipped")
                    if reason is not None:
                        skipped[reason] += 1
                        continue
                    count += 1
                    file.write(line)
    if not complete or not count:
        unfinished.unlink()
    if not complete:
        return Prepared(None, count, dict(skipped))
    if not count:
        raise InputError(f"none of the recordings can be trained on: {dict(skipped)}")
    unfinished.replace(target / NAME)
    return Prepared(target / NAME, count, dict(skipped))


def training_set(data: Path) -> Path:
    """Return the file of utterances that a path names: itself, or the one in a folder that :func:`prepare` wrote.

    Raises
    ------
    InputError
        If there is none, or its preparation has not ended.
    """
    if not data.is_dir():
        return data
    if not (data / NAME).is_file():
        unfinished = (data / NOTE).is_file()
        cure = "go on with the same wandlib prepare" if unfinished else "give a folder that wandlib prepare wrote"
        raise InputError(f"no {NAME} in {str(data)!r}: {cure}")
    return data / NAME
