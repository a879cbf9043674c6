"""Train the codec's decoder on, the encoder frozen: the codes stay what they are and sound clearer.

Beside the errors of :mod:`recipes.mini.train_codec` counts what the phone recogniser of :mod:`recipes.mini.align` makes
of the spectra: its features of the decoded spectra are to be those of the recorded ones (a perceptual loss, as of
Johnson et al., arXiv 1603.08155). Absolute error alone smooths away what tells one phone from another.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from recipes.mini import align, analysis
from recipes.mini.encode import load_codec
from recipes.mini.loop import join, train
from recipes.mini.train_codec import Crops, reconstruction
from wandlib.systems.mini.codec import Codec

PHONETIC_WEIGHT = 0.5


def phonetic_distance(recogniser: align.Recogniser, made: Tensor, recorded: Tensor) -> Tensor:
    """Mean over the recogniser's layers of the L1 distance between features, relative to the recorded ones' size."""
    with torch.no_grad():
        targets = recogniser.features(recorded)
    pairs = zip(recogniser.features(made), targets, strict=True)
    ratios = [(one.float() - two.float()).abs().mean() / two.float().abs().mean() for one, two in pairs]
    return torch.stack(ratios).mean()


def losses(
    codec: Codec, recogniser: align.Recogniser, mel: Tensor, pitch: Tensor, reference: Tensor
) -> dict[str, Tensor]:
    """The decoder's losses; "loss" is their sum."""
    with torch.autocast(mel.device.type, torch.bfloat16):
        with torch.no_grad():
            speaker = codec.speaker(reference)
            quantised = codec.quantise(mel, speaker)
        made = codec.reconstruct(quantised, speaker)
        phonetic = phonetic_distance(recogniser, made[0], mel)
    found = reconstruction(made, mel, pitch)
    return found | {"loss": found["loss"] + PHONETIC_WEIGHT * phonetic, "phonetic": phonetic}


def decoder_parameters(codec: Codec) -> list[torch.nn.Parameter]:
    """What comes after the codes."""
    parts = (codec.from_code, codec.decoder, codec.refine, codec.fine, codec.leave)
    return [value for part in parts for value in part.parameters()]


def run(folder: Path, corpus: Path, total_steps: int = 4_000, seconds: float | None = None) -> Codec:
    """Train the decoder of ``folder/codec.pt`` on, or go on where ``folder/decoder.pt`` stands; returns the codec."""
    world, rank = join()
    torch.manual_seed(0)
    items = analysis.read(corpus)
    validation, training = Crops(items[:200]), Crops(items[200:])
    codec, recogniser = load_codec(folder).train(), align.load_recogniser(folder)
    codec.requires_grad_(False)
    recogniser.requires_grad_(False)
    decoder = decoder_parameters(codec)
    for value in decoder:
        value.requires_grad_(True)
    optimiser = torch.optim.AdamW(decoder, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    held_out = [validation.sample(10_000_000 + i) for i in range(4)]

    def validate() -> dict[str, float]:
        rows = [losses(codec, recogniser, *batch) for batch in held_out]
        return {key: sum(float(row[key]) for row in rows) / len(rows) for key in ("mel", "phonetic", "voicing")}

    def step(number: int) -> dict[str, Tensor]:
        return losses(codec, recogniser, *training.sample(20_000_000 + number * world + rank))

    train(
        "decoder", folder, codec, [optimiser], step, total_steps, validate,
        hold=0.2, every=100, seconds=seconds,
    )  # fmt: skip
    return codec.eval()
