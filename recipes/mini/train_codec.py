"""Train the codec on the analyzed corpus: mel, pitch and voicing through 4,375 codes, 25 a second.

Beside the errors of mel, pitch and voicing counts what the phone recognizer of :mod:`recipes.mini.align` makes of the
spectra: its features of the decoded ones are to be those of the recorded ones (a perceptual loss, as of Johnson et al.,
arXiv 1603.08155). Absolute error alone smooths away what tells one phone from another. The rate of the codes counts,
too (:mod:`recipes.mini.entropy`): the teacher is to predict them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recipes.mini import align, analysis
from recipes.mini import corpus as shards
from recipes.mini.encode import ENTROPY, acoustics
from recipes.mini.entropy import SAID, EntropyModel, said_of
from recipes.mini.loop import autocast, join, train
from wandlib.systems.mini.codec import PITCH_HZ, Codec
from wandlib.systems.mini.features import FRAMES_PER_CODE, HOP

CROP = 64 * FRAMES_PER_CODE
BATCH = 32
RATE_WEIGHT = 0.03
"""What a nat counts."""
Crop = tuple[analysis.Analyzed, int]
"""An utterance and its first frame."""


class Sample(NamedTuple):
    """A batch of crops."""

    mel: Tensor
    pitch: Tensor
    """Hz."""
    reference: Tensor
    """Mel of other crops of the same speakers."""
    said: Tensor
    """What is said at each code (:func:`~recipes.mini.entropy.said_of`), zeros where that is unknown."""


class Crops:
    """Random crops, each with another crop of the same speaker to say who speaks.

    An utterance is drawn as often as it is long: of utterances drawn alike, a quarter of the frames would be padding.
    """

    def __init__(
        self, items: list[analysis.Analyzed], said: Mapping[analysis.Analyzed, NDArray[np.int64]] | None = None
    ) -> None:
        self.items, self.said = items, said or {}
        self.ends = list(accumulate(item.frames for item in items))
        self.by_speaker: dict[str, list[analysis.Analyzed]] = defaultdict(list)
        for item in items:
            if item.frames >= CROP:
                self.by_speaker[item.utterance.speaker].append(item)

    def sample(self, seed: int, batch: int = BATCH) -> Sample:
        """Draw a batch that ``seed`` determines."""
        crops, references = self._chosen(seed, batch)
        mel, pitch = analysis.batch_of(crops, CROP)
        said = torch.zeros(batch, CROP // FRAMES_PER_CODE, SAID, dtype=torch.long)
        for row, (item, start) in zip(said, crops, strict=True):
            if item in self.said:
                # A crop may begin between two codes of the utterance: the nearest says what is said.
                nearest = self.said[item][(start + FRAMES_PER_CODE // 2) // FRAMES_PER_CODE :][: len(row)]
                row[: len(nearest)] = torch.from_numpy(nearest)
        return Sample(mel, pitch, analysis.batch_of(references, CROP)[0], said)

    def with_sound(self, seed: int, batch: int) -> tuple[Sample, Tensor]:
        """Draw the same, and the waveform, [batch, samples]."""
        sound = torch.zeros(batch, CROP * HOP)
        for row, (item, start) in zip(sound, self._chosen(seed, batch)[0], strict=True):
            samples = torch.from_numpy(item.utterance.samples[start * HOP : (start + CROP) * HOP])
            row[: len(samples)] = samples
        return self.sample(seed, batch), sound

    def _chosen(self, seed: int, batch: int) -> tuple[list[Crop], list[Crop]]:
        """Crops of some utterances, and of others by the same speakers."""
        rng = random.Random(seed)
        items = rng.choices(self.items, cum_weights=self.ends, k=batch)
        # A speaker without an utterance of a crop's length is known by this one.
        references = [rng.choice(self.by_speaker.get(item.utterance.speaker, [item])) for item in items]
        return [_crop(item, rng) for item in items], [_crop(item, rng) for item in references]


def _crop(item: analysis.Analyzed, rng: random.Random) -> Crop:
    return item, rng.randrange(max(1, item.frames - CROP + 1))


def losses(codec: Codec, recognizer: align.Recognizer, entropy: EntropyModel, batch: Sample) -> dict[str, Tensor]:
    """Mel (absolute and squared error), pitch where voiced, voicing, phonetic distance, rate; "loss" is their sum."""
    mel, pitch, reference, said = batch
    with autocast(mel.device.type):
        speaker = codec.speaker(reference)
        quantized = codec.quantize(mel, speaker)
        out, log_pitch, voicing = codec.reconstruct(quantized, speaker)
        phonetic = phonetic_distance(recognizer, out, mel)
        rate = entropy(quantized, said, speaker).mean()
    voiced = pitch > 0
    target = (pitch.clamp_min(1) / PITCH_HZ).log()
    error = out - mel
    absolute = error.abs().mean()
    pitch_error = ((log_pitch - target).abs() * voiced).sum() / voiced.sum().clamp_min(1)
    voicing_error = nn.functional.binary_cross_entropy_with_logits(voicing, voiced.float())
    distortion = absolute + 0.5 * error.square().mean() + 1.0 * pitch_error + 0.15 * voicing_error + 1.0 * phonetic
    return {
        "loss": distortion + RATE_WEIGHT * rate,
        "distortion": distortion,
        "rate": rate,
        "mel": absolute,
        "pitch": pitch_error,
        "voicing": voicing_error,
        "phonetic": phonetic,
    }


def phonetic_distance(recognizer: align.Recognizer, made: Tensor, recorded: Tensor) -> Tensor:
    """Mean over the recognizer's layers of the L1 distance between features, relative to the recorded ones' size."""
    with torch.no_grad():
        targets = recognizer.features(recorded)
    pairs = zip(recognizer.features(made), targets, strict=True)
    ratios = [(one.float() - two.float()).abs().mean() / two.float().abs().mean() for one, two in pairs]
    return torch.stack(ratios).mean()


def run(folder: Path, corpus: Path, total_steps: int = 12_000, seconds: float | None = None) -> Codec:
    """Train the codec, or go on where ``folder/codec.pt`` stands; returns the averaged model.

    As many processes as torchrun starts share the work, each with a batch of its own.
    """
    world, rank = join()
    torch.manual_seed(0)
    items = analysis.read(corpus)
    aligned = zip(items, align.phones(corpus), align.align_corpus(folder, corpus), strict=True)
    said = {item: said_of(symbols, positions) for item, symbols, positions in aligned}
    validation, training = Crops(items[: shards.HELD_OUT], said), Crops(items[shards.HELD_OUT :], said)
    codec, recognizer = Codec(**acoustics(folder)["codec"]), align.load_recognizer(folder).requires_grad_(False)
    entropy = EntropyModel(codec.config["speaker_dims"])
    codec.add_module(ENTROPY, entropy)  # so that it is kept with the codec until that is trained
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    held_out = [validation.sample(10_000_000 + i) for i in range(4)]

    def validate() -> dict[str, float]:
        rows = [losses(codec, recognizer, entropy, batch) for batch in held_out]
        return {key: sum(float(row[key]) for row in rows) / len(rows) for key in rows[0]}

    def step(number: int) -> dict[str, Tensor]:
        return losses(codec, recognizer, entropy, training.sample(number * world + rank))

    train(
        "codec", folder, codec, [optimizer], step, total_steps, validate,
        warm_up=200, hold=0.3, every=100, seconds=seconds,
    )  # fmt: skip
    delattr(codec, ENTROPY)
    return codec.eval()
