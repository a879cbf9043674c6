"""Utterances as numbers, to make rows of."""

import numpy as np

from recipes.mini.rows import Spoken


def talk(count: int, speakers: int = 2, seed: int = 0) -> list[Spoken]:
    """Utterances of 3 symbols and 78 to 110 codes, whose codes tell which one they belong to."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        codes = np.full(78 + number % 33, number, np.int64)
        codes[1:] = rng.integers(0, 4375, len(codes) - 1)
        positions = np.minimum(np.arange(len(codes)) // 30, 2).astype(np.int16)
        made.append(Spoken([1 + number % 5, 2, 3], codes, f"speaker{number % speakers}", positions))
    return made
