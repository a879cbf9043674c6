"""What teacher and student learn from: the corpus as numbers, without sound, in one file.

The stage ``codes`` writes it as ``corpus/spoken.npz``. That of the shipped voice lies beside this module, so that the
ablation, or another student, needs no hours of speech first (:mod:`recipes.mini.shipped`).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipes.mini import align, analysis
from recipes.mini import corpus as shards
from recipes.mini.encode import load_codec
from recipes.mini.files import whole
from recipes.mini.loop import sum_of
from wandlib.systems.mini.codec import Codec

NAME = "spoken.npz"
SHIPPED = Path(__file__).with_name(NAME)
"""Of the voice that is shipped."""


@dataclass(frozen=True)
class Spoken:
    """One utterance of the corpus, as numbers."""

    symbols: list[int]
    codes: NDArray[np.int64]
    """By shift, [shifts, codes]."""
    speaker: str
    positions: NDArray[np.int16]
    """For each code, which symbol is spoken; empty where unknown."""
    speed: float = 1.0
    """Speaking rate."""

    @property
    def length(self) -> int:
        """Codes."""
        return self.codes.shape[1]


def of_corpus(folder: Path, corpus: Path) -> list[Spoken]:
    """Put together every utterance's symbols, codes and alignment."""
    symbols, items, stored = align.phones(corpus), analysis.read(corpus), np.load(corpus / "codes.npz")
    codes = np.split(stored["codes"].astype(np.int64), stored["ends"][:-1], axis=1)
    positions = align.align_corpus(folder, corpus)
    return [
        Spoken(row, said, item.utterance.speaker, places, item.utterance.speed)
        for row, said, item, places in zip(symbols, codes, items, positions, strict=True)
    ]


def fingerprint(codec: Codec) -> str:
    """Return a number that tells codecs apart."""
    return sum_of(dict(codec.named_parameters()))


def build(folder: Path, corpus: Path) -> None:
    """Write ``corpus/spoken.npz``; nothing to do where it is there, of this codec and of as many utterances."""
    path, codec = corpus / NAME, fingerprint(load_codec(folder))
    if path.exists():
        stored = np.load(path)
        if str(stored["codec"]) == codec and len(stored["code_ends"]) == len(shards.read_shards(corpus)):
            return
    write(path, of_corpus(folder, corpus), codec)


def lend(codec: Codec, corpus: Path) -> bool:
    """Copy what the shipped voice learned from to ``corpus``, if ``codec`` is its codec; returns whether it is."""
    ours = SHIPPED.exists() and str(np.load(SHIPPED)["codec"]) == fingerprint(codec)
    if ours and not (corpus / NAME).exists():
        corpus.mkdir(parents=True, exist_ok=True)
        with whole(corpus / NAME) as partial:
            shutil.copyfile(SHIPPED, partial)
    return ours


def write(path: Path, spoken: Sequence[Spoken], codec: str = "") -> None:
    """Write utterances into one file."""
    speakers = sorted({one.speaker for one in spoken})
    # What is being spoken moves on by a symbol or two: steps can be stored in less than positions.
    steps = [np.diff(one.positions, prepend=0) for one in spoken]
    with whole(path) as partial:
        np.savez_compressed(
            partial,
            codes=np.concatenate([one.codes for one in spoken], axis=1).astype(np.int16),
            code_ends=np.cumsum([one.length for one in spoken]),
            symbols=np.concatenate([np.asarray(one.symbols, np.uint8) for one in spoken]),
            symbol_ends=np.cumsum([len(one.symbols) for one in spoken]),
            steps=np.concatenate(steps).astype(np.uint8),
            step_ends=np.cumsum([len(row) for row in steps]),
            speakers=speakers,
            speaker=np.asarray([speakers.index(one.speaker) for one in spoken], np.uint8),
            speed=[one.speed for one in spoken],
            codec=codec,
        )


def read(corpus: Path) -> tuple[list[Spoken], list[Spoken]]:
    """(training, held out): every utterance of ``corpus/spoken.npz``.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    """
    path = corpus / NAME
    if not path.exists():
        raise FileNotFoundError(f"no {path}: `python -m recipes.mini` writes it, in its stage codes or shipped")
    stored = np.load(path)
    names = [str(name) for name in stored["speakers"]]
    spoken = [
        Spoken(symbols.tolist(), codes, names[speaker], np.cumsum(steps, dtype=np.int16), float(speed))
        for symbols, codes, speaker, steps, speed in zip(
            np.split(stored["symbols"], stored["symbol_ends"][:-1]),
            np.split(stored["codes"].astype(np.int64), stored["code_ends"][:-1], axis=1),
            stored["speaker"],
            np.split(stored["steps"], stored["step_ends"][:-1]),
            stored["speed"],
            strict=True,
        )
    ]
    return spoken[shards.HELD_OUT :], spoken[: shards.HELD_OUT]
