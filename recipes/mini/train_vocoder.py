"""Train the vocoder: recorded mel and pitch in, the recording's spectra at five resolutions as the target.

Afterwards :func:`tune` goes on with spectra that have passed the codec, so that the filters learn to sharpen what its
decoder smooths.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from recipes.mini import analysis
from recipes.mini import corpus as shards
from recipes.mini.encode import acoustics, load_codec
from recipes.mini.loop import join, train
from recipes.mini.train_codec import Crops
from wandlib.systems.mini.codec import PITCH_HZ, Acoustics, Codec
from wandlib.systems.mini.features import HOP
from wandlib.systems.mini.vocoder import Vocoder

FRAMES = 96
BATCH = 16
RESOLUTIONS = (2048, 1024, 512, 256, 128)


def spectral_loss(made: torch.Tensor, recorded: torch.Tensor) -> torch.Tensor:
    """Mean over resolutions of the L1 distance of log and of linear magnitudes (multi-resolution STFT loss)."""
    total = torch.zeros((), device=made.device)
    for size in RESOLUTIONS:
        taper = torch.hann_window(size, device=made.device)
        one, two = (
            torch.stft(sound, size, size // 4, size, taper, return_complex=True).abs().clamp_min(1e-3)
            for sound in (made, recorded)
        )
        total = total + (one.log() - two.log()).abs().mean() + (one - two).abs().sum() / two.sum()
    return total / len(RESOLUTIONS)


def filled_pitch(hz: torch.Tensor) -> torch.Tensor:
    """log(Hz / 120), the last voiced value held through unvoiced frames; [batch, frames]."""
    out = torch.zeros_like(hz)
    last = torch.zeros(len(hz))
    for index in range(hz.shape[1]):
        voiced = hz[:, index] > 0
        last = torch.where(voiced, (hz[:, index].clamp_min(1) / PITCH_HZ).log(), last)
        out[:, index] = last
    return out


def acoustics_of(mel: torch.Tensor, hz: torch.Tensor) -> Acoustics:
    """Make the vocoder's input from an analysis: mel [batch, frames, 80], pitch in Hz [batch, frames]."""
    return Acoustics(mel, filled_pitch(hz), (hz > 0).to(mel.dtype))


def sample(items: list[analysis.Analyzed], seed: int, batch: int = BATCH) -> tuple[Acoustics, torch.Tensor]:
    """(acoustics, waveform) of random crops that ``seed`` determines."""
    rng = random.Random(seed)
    chosen = [item for item in rng.choices(items, k=2 * batch) if item.frames > FRAMES + 4][:batch]
    rows = [(item, rng.randrange(item.frames - FRAMES - 4)) for item in chosen]
    mel, pitch = analysis.batch_of(rows, FRAMES)
    waveform = np.stack([item.utterance.samples[start * HOP : (start + FRAMES) * HOP] for item, start in rows])
    return acoustics_of(mel, pitch), torch.from_numpy(waveform)


def with_sound(corpus: Path) -> tuple[list[analysis.Analyzed], list[analysis.Analyzed]]:
    """(held out, training): the utterances whose sound there is."""
    items = [item for item in analysis.read(corpus) if item.utterance.has_sound]
    return items[: shards.HELD_OUT], items[shards.HELD_OUT :]


def run(folder: Path, corpus: Path, total_steps: int = 4_000, seconds: float | None = None) -> Vocoder:
    """Train the vocoder, or go on where ``folder/vocoder.pt`` stands; returns the averaged model."""
    torch.manual_seed(0)
    validation, training = with_sound(corpus)
    vocoder = Vocoder(**acoustics(folder)["vocoder"])
    optimizer = torch.optim.AdamW(vocoder.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)

    def step(number: int) -> dict[str, torch.Tensor]:
        acoustics, waveform = sample(training, number)
        generator = torch.Generator().manual_seed(number)
        return {"loss": spectral_loss(vocoder(acoustics, torch.randn(waveform.shape, generator=generator)), waveform)}

    held_out = [sample(validation, 10_000_000 + i) for i in range(4)]

    def validate() -> dict[str, float]:
        return {"loss": sum(float(spectral_loss(vocoder(a), w)) for a, w in held_out) / len(held_out)}

    train("vocoder", folder, vocoder, [optimizer], step, total_steps, validate, hold=0.3, seconds=seconds)
    return vocoder.eval()


def load_vocoder(folder: Path) -> Vocoder:
    """Load the averaged weights of ``folder/tuned_vocoder.pt``, or of ``folder/vocoder.pt`` where it was not tuned."""
    tuned = folder / "tuned_vocoder.pt"
    vocoder = Vocoder(**acoustics(folder)["vocoder"])
    path = tuned if tuned.exists() else folder / "vocoder.pt"
    vocoder.load_state_dict(torch.load(path, weights_only=True)["average"])
    return vocoder.eval()


@torch.no_grad()
def decoded(codec: Codec, crops: Crops, seed: int, batch: int) -> tuple[Acoustics, torch.Tensor]:
    """(acoustics, waveform): three quarters of the spectra have passed the codec, the last one is as recorded."""
    (mel, pitch, reference, _), waveform = crops.with_sound(seed, batch)
    passed = 3 * batch // 4
    speaker = codec.speaker(reference[:passed])
    spectra, _, _ = codec.reconstruct(codec.quantize(mel[:passed], speaker), speaker)
    return acoustics_of(torch.cat((spectra, mel[passed:])), pitch), waveform


def tune(folder: Path, corpus: Path, total_steps: int = 4_000, seconds: float | None = None) -> Vocoder:
    """Train the vocoder on, on spectra that have passed the codec; the pitch stays the recorded one."""
    world, rank = join()
    torch.manual_seed(0)
    validation, training = map(Crops, with_sound(corpus))
    codec, vocoder = load_codec(folder), load_vocoder(folder).train()
    optimizer = torch.optim.AdamW(vocoder.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)

    def step(number: int) -> dict[str, torch.Tensor]:
        acoustics, waveform = decoded(codec, training, number * world + rank, BATCH // 2)
        generator = torch.Generator().manual_seed(number)
        return {"loss": spectral_loss(vocoder(acoustics, torch.randn(waveform.shape, generator=generator)), waveform)}

    held_out = [decoded(codec, validation, 10_000_000 + i, BATCH // 2) for i in range(4)]

    def validate() -> dict[str, float]:
        return {"loss": sum(float(spectral_loss(vocoder(a), w)) for a, w in held_out) / len(held_out)}

    train("tuned_vocoder", folder, vocoder, [optimizer], step, total_steps, validate, every=100, seconds=seconds)
    return vocoder.eval()
