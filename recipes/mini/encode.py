"""Codes of the whole corpus, from the trained codec: what the language model learns to write.

A code is of four frames. Encoded from its second, third or fourth frame on, the same speech has other codes: each of
the teacher's passes over the speech is of another shift. Guidance and student read the codes of the first one again.
"""

from __future__ import annotations

import functools
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recipes.mini import analysis
from recipes.mini.files import whole
from recipes.mini.pool import each
from wandlib.systems.mini.codec import Codec
from wandlib.systems.mini.features import FRAMES_PER_CODE

ACOUSTICS: dict[str, dict[str, Any]] = {"codec": {"look_ahead": 3}, "vocoder": {"ahead": 1}}
"""What is trained: with these, the sound of a code depends on 5 codes after it, and the first sound comes after 7."""
STARTED_FROM = "acoustics.json"
"""Beside weights that training goes on from: what they are of, where that is something else."""
SHIFTS = (0, 2, 1, 3)
"""Frames that an utterance is encoded without at its start, in the order in which passes use them."""
ENTROPY = "entropy"
"""Under this name the codec's checkpoint has the model that its training measured the codes with."""
REFERENCE_FRAMES = 75 * FRAMES_PER_CODE


def acoustics(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the settings of the codec and the vocoder in a folder."""
    path = folder / STARTED_FROM
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else ACOUSTICS
    return found


def load_codec(folder: Path) -> Codec:
    """Load the averaged weights of ``folder/codec.pt``."""
    codec = Codec(**acoustics(folder)["codec"])
    weights = torch.load(folder / "codec.pt", weights_only=True)["average"]
    codec.load_state_dict({name: value for name, value in weights.items() if not name.startswith(f"{ENTROPY}.")})
    return codec.eval()


def run(folder: Path, corpus: Path, workers: int = 2) -> None:
    """Write ``corpus/codes.npz``: codes end to end, a row for each of :data:`SHIFTS`, and where each utterance ends.

    Another utterance of the speaker says who speaks, as it will when the voice is used.
    """
    path = corpus / "codes.npz"
    items = analysis.read(corpus)
    trained = torch.load(folder / "codec.pt", weights_only=True)["step"]
    if path.exists() and (stored := np.load(path))["codec"] == trained and len(stored["ends"]) == len(items):
        return
    jobs = [(folder, corpus, range(start, min(start + 200, len(items)))) for start in range(0, len(items), 200)]
    codes = [row for part in each(encode, jobs, workers, "codes") for row in part]
    ends = np.cumsum([found.shape[1] for found in codes])
    with whole(path) as partial:
        np.savez(partial, codes=np.concatenate(codes, axis=1), ends=ends, codec=trained)


@torch.inference_mode()
def encode(job: tuple[Path, Path, range]) -> list[NDArray[np.int16]]:
    """Codes of some of the corpus, utterance by utterance, each [shifts, codes]."""
    folder, corpus, numbers = job
    torch.set_num_threads(1)
    codec, items, by_speaker = _prepared(folder, corpus)
    codes = []
    for number in numbers:
        # A speaker without a long utterance is known by this one.
        other = random.Random(number).choice(by_speaker.get(items[number].utterance.speaker, [items[number]]))
        reference, _ = analysis.batch_of([(other, 0)], REFERENCE_FRAMES)
        mel, _ = analysis.batch_of([(items[number], shift) for shift in SHIFTS], items[number].frames)
        speaker = codec.speaker(reference).expand(len(SHIFTS), -1)
        codes.append(codec.encode(mel, speaker).numpy().astype(np.int16))
    return codes


@functools.cache
def _prepared(folder: Path, corpus: Path) -> tuple[Codec, list[analysis.Analyzed], dict[str, list[analysis.Analyzed]]]:
    """Once a process: the codec, the utterances, and those long enough to say who speaks."""
    items = analysis.read(corpus)
    by_speaker: dict[str, list[analysis.Analyzed]] = defaultdict(list)
    for item in items:
        if item.frames >= REFERENCE_FRAMES:
            by_speaker[item.utterance.speaker].append(item)
    return load_codec(folder), items, by_speaker
