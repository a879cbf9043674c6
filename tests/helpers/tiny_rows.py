"""Utterances as numbers, to make rows of."""

import numpy as np

from recipes.mini.spoken import Spoken

SPEEDS = (0.92, 1.1)


def talk(count: int, speakers: int = 2, seed: int = 0) -> list[Spoken]:
    """Utterances of 3 symbols and 78 to 110 codes at two shifts; the first code tells which one they belong to."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        codes = np.full((2, 78 + number % 33), number, np.int64)
        codes[:, 1:] = rng.integers(0, 4375, (2, codes.shape[1] - 1))
        positions = np.minimum(np.arange(codes.shape[1]) // 30, 2).astype(np.int16)
        speed = SPEEDS[number // speakers % len(SPEEDS)]
        made.append(Spoken([1 + number % 5, 2, 3], codes, f"speaker{number % speakers}", positions, speed))
    return made
