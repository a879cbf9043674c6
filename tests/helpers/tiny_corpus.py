"""A corpus of a few buzzes in the recipe's layout."""

from pathlib import Path

import numpy as np

from recipes.mini import analysis, corpus


def tones(count: int) -> list[tuple[str, str, np.ndarray]]:
    """Utterances of different lengths: text, speaker, samples."""
    made = []
    for index in range(count):
        time = np.arange(16_000 + 1234 * index) / 16_000
        wave = np.sign(np.sin(2 * np.pi * (110 + 10 * (index % 2)) * time)) * 0.1
        made.append((f"number {index}", f"speaker{index % 2}", (wave * 32767).astype(np.int16)))
    return made


def write(folder: Path) -> Path:
    """Twelve of them in two analyzed shards; returns the folder."""
    utterances = tones(12)
    corpus.write_shard(folder, 0, utterances[:7])
    corpus.write_shard(folder, 1, utterances[7:])
    for path in sorted(folder.glob("000?.npy")):
        analysis.analyse_shard(path)
    return folder
