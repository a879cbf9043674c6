"""From recordings and texts to what ``wandlib train`` reads: a line of ids for each utterance.

A sample is ``[sos | text | task]``, which is conditioning, then the codes of the recording and the end token. The work
is cut into shards; a shard that is complete has its final name, so that a run that was stopped goes on where it was.
Shards are shared out among the processes of this machine, and, under ``accelerate launch``, among machines.

Source: the published training recipe of CosyVoice 2, without its interleaved half.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm
from transformers import Qwen2Config

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2 import folder as published
from wandlib.systems.cosyvoice2.configuration import CosyVoice2Config
from wandlib.systems.cosyvoice2.corpora import Recording, find_recordings
from wandlib.systems.cosyvoice2.features import ANALYSIS_RATE
from wandlib.systems.cosyvoice2.llm_weights import config_of
from wandlib.systems.cosyvoice2.onnx_models import MAXIMUM_SECONDS, SpeechTokenizer
from wandlib.systems.cosyvoice2.reference import at, read_audio
from wandlib.systems.cosyvoice2.text import TextFrontend
from wandlib.systems.cosyvoice2.tokenizer import TextTokenizer

NAME = "utterances.jsonl"
"""All shards together, written by the last process that finds them complete."""


@dataclass(frozen=True)
class Prepared:
    """What a run made.

    Attributes
    ----------
    path
        The training set; None while other processes still work on it.
    utterances
        Samples in it, or in this process's shards.
    skipped
        How many recordings were left out, by reason.
    """

    path: Path | None
    utterances: int
    skipped: dict[str, int]


class Encoder:
    """Recordings to samples.

    Parameters
    ----------
    folder
        The published folder.
    batch
        Recordings in one run of the speech tokenizer.
    """

    def __init__(self, folder: str | Path, batch: int = 16) -> None:
        root = published.check_folder(
            folder, (*published.LANGUAGE_MODEL, *published.TOKENIZER, published.REFERENCES[1])
        )
        batched = root / "speech_tokenizer_v2.batch.onnx"
        self.speech = SpeechTokenizer(batched if batched.is_file() else root / published.REFERENCES[1], cuda=True)
        self.text = TextTokenizer(root / published.BASE)
        self.frontend = TextFrontend(lambda text: len(self.text(text)))
        self.config = shape_of(root)
        self.batch = batch

    def __call__(self, recordings: list[Recording]) -> Iterator[dict[str, Any]]:
        """Yield a sample for each recording, or ``{"skipped": reason, "audio": file}``."""
        for start in range(0, len(recordings), self.batch):
            some = recordings[start : start + self.batch]
            heard = [self.read(recording) for recording in some]
            sounds = [sound for sound in heard if not isinstance(sound, str)]
            codes = iter(self.speech.batch(sounds))
            for recording, sound in zip(some, heard, strict=True):
                reason = sound if isinstance(sound, str) else None
                found = [] if reason else next(codes)
                if reason is None and not found:
                    reason = "no codes"
                yield {"skipped": reason, "audio": str(recording.audio)} if reason else self.sample(recording, found)

    def read(self, recording: Recording) -> Any:
        """Return the samples at 16 kHz, or the reason why there are none to be used."""
        if not recording.text:
            return "no text"
        try:
            if soundfile.info(recording.audio).duration > MAXIMUM_SECONDS:
                return f"longer than {MAXIMUM_SECONDS} s"
            samples, rate = read_audio(recording.audio)
        except (InputError, OSError, soundfile.LibsndfileError):
            return "no audio that can be read"
        if not len(samples):
            return "no audio that can be read"
        return at(samples, rate, ANALYSIS_RATE)

    def sample(self, recording: Recording, codes: list[int]) -> dict[str, Any]:
        """Return ids and the length of the conditioning."""
        text = recording.text if recording.normalized else self.frontend.normalize(recording.text)
        prompt = self.config.prompt(self.text(text))
        return {"input_ids": [*prompt, *codes, self.config.end], "conditioning": len(prompt)}


def shape_of(root: Path) -> CosyVoice2Config:
    """Return the configuration of a folder's language model."""
    weights = published.read_tensors(root / "llm.pt", mapped=True)
    return config_of(weights, Qwen2Config.from_pretrained(root / published.BASE, local_files_only=True))


def prepare(
    folder: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    processes: int = 1,
    batch: int = 16,
    shard: int = 500,
    progress: bool = True,
) -> Prepared:
    """Write the training set of a corpus.

    Parameters
    ----------
    folder
        The published folder.
    data
        The corpus; see :mod:`wandlib.systems.cosyvoice2.corpora`.
    output
        Folder for the shards and, at the end, ``utterances.jsonl``. What is complete in it is kept.
    processes
        On this machine. Under ``accelerate launch`` each of its processes is one, and this has no effect.
    batch
        Recordings in one run of the speech tokenizer.
    shard
        Recordings in a shard.
    progress
        Show a bar.

    Raises
    ------
    FileNotFoundError
        If a file is missing in the folder.
    InputError
        If folder or corpus cannot be used, or ``output`` holds shards of another corpus or cut.
    """
    for name, value in (("processes", processes), ("batch", batch), ("shard", shard)):
        if value < 1:
            raise InputError(f"{name} is at least 1, not {value}")
    recordings = find_recordings(data)
    published.check_folder(folder, (*published.LANGUAGE_MODEL, *published.TOKENIZER, published.REFERENCES[1]))
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    claim(target, {"data": str(Path(data).resolve()), "recordings": len(recordings), "shard": shard})
    total = -(-len(recordings) // shard)
    paths = [target / f"shard-{number:05d}-of-{total:05d}.jsonl" for number in range(total)]
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    mine = [number for number in range(rank, total, world) if not paths[number].is_file()]
    jobs = [(paths[number], recordings[number * shard : (number + 1) * shard]) for number in mine]
    with tqdm(total=len(jobs), unit="shard", disable=not progress, desc="preparing") as bar:
        if processes == 1 or world > 1 or len(jobs) < 2:
            encoder = Encoder(folder, batch) if jobs else None
            for path, some in jobs:
                write_shard(encoder, path, some)
                bar.update()
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(processes, context, _start, (folder, batch)) as pool:
                for done in as_completed([pool.submit(_work, *job) for job in jobs]):
                    done.result()
                    bar.update()
    return collect(target, paths)


def claim(target: Path, settings: dict[str, Any]) -> None:
    """Note what the shards are of, or check that those in the folder are of the same."""
    note = target / "prepare.json"
    if note.is_file():
        earlier = json.loads(note.read_text(encoding="utf-8"))
        if earlier != settings:
            raise InputError(f"{str(target)!r} holds shards of {earlier}, this is {settings}: choose another folder")
    note.write_text(json.dumps(settings), encoding="utf-8")


_encoder: Encoder | None = None


def _start(folder: str | Path, batch: int) -> None:
    """Load the networks, once in each process."""
    global _encoder  # the pool's processes have no other place for it
    _encoder = Encoder(folder, batch)


def _work(path: Path, recordings: list[Recording]) -> None:
    write_shard(_encoder, path, recordings)


def write_shard(encoder: Encoder | None, path: Path, recordings: list[Recording]) -> None:
    """Write a shard under a name of its own, then give it its final one."""
    if encoder is None:
        raise RuntimeError("the process has no encoder")
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        for sample in encoder(recordings):
            file.write(json.dumps(sample) + "\n")
    unfinished.replace(path)


def collect(target: Path, paths: list[Path]) -> Prepared:
    """Join the shards, if all are there, without the recordings that were left out."""
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
    if not complete:
        unfinished.unlink()
        return Prepared(None, count, dict(skipped))
    if not count:
        unfinished.unlink()
        raise InputError(f"none of the recordings can be trained on: {dict(skipped)}")
    unfinished.replace(target / NAME)
    return Prepared(target / NAME, count, dict(skipped))
