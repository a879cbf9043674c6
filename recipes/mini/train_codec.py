"""Train the codec on the analysed corpus: mel, pitch and voicing through 4,375 codes, 25 a second."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import torch
from torch import nn

from recipes.mini import analysis
from recipes.mini.loop import join, train
from wandlib.systems.mini.codec import PITCH_HZ, Codec
from wandlib.systems.mini.features import FRAMES_PER_CODE, HOP

CROP = 64 * FRAMES_PER_CODE
BATCH = 32
Crop = tuple[analysis.Analysed, int]
"""An utterance and its first frame."""


class Crops:
    """Random crops, each with another crop of the same speaker to say who speaks."""

    def __init__(self, items: list[analysis.Analysed]) -> None:
        self.items = items
        self.by_speaker: dict[str, list[analysis.Analysed]] = defaultdict(list)
        for item in items:
            self.by_speaker[item.utterance.speaker].append(item)

    def sample(self, seed: int, batch: int = BATCH) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(mel, pitch in Hz, reference mel) of a batch that ``seed`` determines."""
        crops, references = self._chosen(seed, batch)
        mel, pitch = analysis.batch_of(crops, CROP)
        return mel, pitch, analysis.batch_of(references, CROP)[0]

    def with_sound(self, seed: int, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same and the waveform, [batch, samples]."""
        sound = torch.zeros(batch, CROP * HOP)
        for row, (item, start) in zip(sound, self._chosen(seed, batch)[0], strict=True):
            samples = torch.from_numpy(item.utterance.samples[start * HOP : (start + CROP) * HOP])
            row[: len(samples)] = samples
        return *self.sample(seed, batch), sound

    def _chosen(self, seed: int, batch: int) -> tuple[list[Crop], list[Crop]]:
        """Crops of some utterances, and of others by the same speakers."""
        rng = random.Random(seed)
        items = rng.choices(self.items, k=batch)
        references = [rng.choice(self.by_speaker[item.utterance.speaker]) for item in items]
        return [_crop(item, rng) for item in items], [_crop(item, rng) for item in references]


def _crop(item: analysis.Analysed, rng: random.Random) -> Crop:
    return item, rng.randrange(0, max(1, item.frames - CROP + 1), FRAMES_PER_CODE)


def losses(codec: Codec, mel: torch.Tensor, pitch: torch.Tensor, reference: torch.Tensor) -> dict[str, torch.Tensor]:
    """The losses of spectra that pass through the codec, spoken by whoever speaks in ``reference``."""
    with torch.autocast(mel.device.type, torch.bfloat16):
        speaker = codec.speaker(reference)
        made = codec.reconstruct(codec.quantise(mel, speaker), speaker)
    return reconstruction(made, mel, pitch)


def reconstruction(
    made: tuple[torch.Tensor, torch.Tensor, torch.Tensor], mel: torch.Tensor, pitch: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Mel (absolute and squared error), pitch where voiced, and voicing, of what :meth:`Codec.reconstruct` returns."""
    out, log_pitch, voicing = made
    voiced = pitch > 0
    target = (pitch.clamp_min(1) / PITCH_HZ).log()
    error = out - mel
    absolute = error.abs().mean()
    pitch_error = ((log_pitch - target).abs() * voiced).sum() / voiced.sum().clamp_min(1)
    voicing_error = nn.functional.binary_cross_entropy_with_logits(voicing, voiced.float())
    loss = absolute + 0.5 * error.square().mean() + 1.0 * pitch_error + 0.15 * voicing_error
    return {"loss": loss, "mel": absolute, "pitch": pitch_error, "voicing": voicing_error}


def run(folder: Path, corpus: Path, total_steps: int = 12_000, seconds: float | None = None) -> Codec:
    """Train the codec, or go on where ``folder/codec.pt`` stands; returns the averaged model.

    As many processes as torchrun starts share the work, each with a batch of its own.
    """
    world, rank = join()
    torch.manual_seed(0)
    items = analysis.read(corpus)
    validation, training = Crops(items[:200]), Crops(items[200:])
    codec = Codec()
    optimiser = torch.optim.AdamW(codec.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    held_out = [validation.sample(10_000_000 + i) for i in range(4)]

    def validate() -> dict[str, float]:
        rows = [losses(codec, *batch) for batch in held_out]
        return {key: sum(float(row[key]) for row in rows) / len(rows) for key in ("mel", "pitch", "voicing")}

    def step(number: int) -> dict[str, torch.Tensor]:
        return losses(codec, *training.sample(number * world + rank))

    train(
        "codec", folder, codec, [optimiser], step, total_steps, validate,
        warm_up=200, hold=0.3, seconds=seconds,
    )  # fmt: skip
    return codec.eval()
