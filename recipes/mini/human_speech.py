r"""Human speech for the same recipe: LibriTTS and CMU ARCTIC, through torchaudio's datasets, into the recipe's shards.

    python -m recipes.mini.human_speech libritts --subset train-clean-100 --download --folder runs/libritts
    python -m recipes.mini analysis aligner alignment vocoder codec codes teacher student export \
        --folder runs/libritts --target runs/libritts/voice

or, in a folder of its own, as every choice of subsets is::

    python -m recipes.mini.human_speech arctic --subset slt --subset bdl --download --folder runs/arctic
    python -m recipes.mini analysis aligner alignment vocoder codec codes teacher student export \
        --folder runs/arctic --target runs/arctic/voice

torchaudio downloads, unpacks and checks the archives; the files are read with soundfile, which needs no extra codec
library.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import soundfile
import soxr
import typer
from numpy.typing import NDArray
from tqdm import tqdm

from recipes.mini.corpus import prepare, write_shard
from recipes.mini.files import write_json
from wandlib.systems.mini.features import SAMPLE_RATE

Line = tuple[str, str, Path]
"""(text, speaker, sound file)"""
MANIFEST = "lines.json"
"""Beside the shards: the sum of what they hold."""


def libritts(root: Path, subset: str, download: bool = False) -> Iterator[Line]:
    """Lines of a LibriTTS subset such as "train-clean-100", in order of their file names.

    Raises
    ------
    RuntimeError
        From torchaudio, where the subset is not under ``root`` and ``download`` is off.
    """
    from torchaudio.datasets import LIBRITTS

    root.mkdir(parents=True, exist_ok=True)
    LIBRITTS(root, url=subset, download=download)
    for path in sorted((root / "LibriTTS" / subset).glob("*/*/*.wav")):
        text = path.with_name(f"{path.stem}.normalized.txt").read_text(encoding="utf-8").strip()
        yield text, path.parts[-3], path


def arctic(root: Path, voice: str, download: bool = False) -> Iterator[Line]:
    """Lines of a CMU ARCTIC voice such as "slt".

    Raises
    ------
    RuntimeError
        From torchaudio, where the voice is not under ``root`` and ``download`` is off.
    """
    from torchaudio.datasets import CMUARCTIC

    (root / "ARCTIC").mkdir(parents=True, exist_ok=True)
    CMUARCTIC(root, url=voice, download=download)
    folder = root / "ARCTIC" / f"cmu_us_{voice}_arctic"
    for line in (folder / "etc" / "txt.done.data").read_text(encoding="utf-8").splitlines():
        match = re.match(r'\(\s*(\S+)\s+"(.*)"\s*\)', line)
        if match is not None:
            yield match.group(2), voice, folder / "wav" / f"{match.group(1)}.wav"


def read(line: Line, longest: float = 20.0) -> tuple[str, str, NDArray[np.int16]]:
    """Make a line as a shard stores it; beyond ``longest`` seconds, or silent, it is empty and left out."""
    text, speaker, path = line
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if len(mono) > longest * rate:
        return text, speaker, np.zeros(0, np.int16)
    try:
        return text, speaker, prepare(soxr.resample(mono, rate, SAMPLE_RATE))
    except ValueError:
        return text, speaker, np.zeros(0, np.int16)


def digest(lines: list[Line], per_shard: int) -> str:
    """Sum of what the shards are to hold; the dataset may lie elsewhere another time."""
    described = [per_shard, [(text, speaker, path.name) for text, speaker, path in lines]]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def build(folder: Path, lines: list[Line], per_shard: int = 240, seed: int = 0) -> None:
    """Write shards of shuffled lines, so that each holds many speakers; finished shards of the same lines are kept.

    Raises
    ------
    ValueError
        When ``folder`` holds another corpus.
    """
    order = np.random.default_rng(seed).permutation(len(lines))
    manifest = {"lines": digest([lines[i] for i in order], per_shard)}
    path = folder / MANIFEST
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if before != manifest and any(folder.glob("[0-9]*.npy")):
        raise ValueError(f"{folder} holds another corpus than these {len(lines)} lines: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, manifest)
    groups = np.split(order, range(per_shard, len(order), per_shard))
    for index, group in enumerate(tqdm(groups, desc="shards")):
        if not (folder / f"{index:04d}.npy").exists():
            write_shard(folder, index, (read(lines[i]) for i in group))


def main(
    corpus: Annotated[Literal["libritts", "arctic"], typer.Argument(help="Which dataset.")],
    root: Annotated[Path, typer.Option(help="Where the dataset is, or goes.")] = Path("data"),
    subset: Annotated[list[str] | None, typer.Option(help="LibriTTS subsets or ARCTIC voices.")] = None,
    download: Annotated[bool, typer.Option(help="Fetch what is missing (LibriTTS train-clean-100: 8 GB).")] = False,
    folder: Annotated[Path, typer.Option(help="The recipe's folder, for these subsets alone.")] = Path("runs/human"),
) -> None:
    """Turn human speech into the recipe's shards."""
    source, default = (
        (libritts, ["train-clean-100"]) if corpus == "libritts" else (arctic, ["slt", "bdl", "clb", "rms"])
    )
    lines = [line for name in subset or default for line in source(root, name, download)]
    build(folder / "corpus", lines)
    typer.echo(f"{len(lines)} utterances in {folder / 'corpus'}")


if __name__ == "__main__":
    typer.run(main)
