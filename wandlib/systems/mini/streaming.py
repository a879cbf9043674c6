"""Codes in, sound out, while the codes still come: each layer keeps the few frames that its neighbors need.

Nothing is computed twice and nothing is approximated. A layer gives out a frame once all frames that it depends on are
there, so that the look-ahead is that of the network, counted by :func:`look_ahead`: what the convolutions at 25 Hz and
at 100 Hz see ahead, and the overlapping frames of the vocoder's source.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from wandlib.systems.mini.codec import Acoustics, Codec
from wandlib.systems.mini.features import FRAMES_PER_CODE, HOP
from wandlib.systems.mini.layers import ConvNeXt
from wandlib.systems.mini.vocoder import (
    FFT,
    FRAME,
    Vocoder,
    inputs,
    noise_generator,
    overlap_add,
    pulses_between,
    voiced,
    white_noise,
)

FIRST, LARGEST = 2, 16
"""Codes of a piece of sound: few in the first, so that it comes soon; each next one has twice as many, up to the most.

A machine that makes codes in half the time that they last never runs out of sound."""
OVERLAP = 1
"""Frames after a frame that its sound depends on in the vocoder: the next one begins in its middle."""


def look_ahead(codec: Codec, vocoder: Vocoder) -> int:
    """Return how many codes after a code its sound depends on."""
    blocks = [*codec.decoder, *codec.fine, *vocoder.blocks]
    ahead = [block.ahead for block in blocks if isinstance(block, ConvNeXt)]
    slow = sum(ahead[: len(codec.decoder)])
    fast = sum(ahead[len(codec.decoder) :]) + OVERLAP
    return slow + -(-fast // FRAMES_PER_CODE)


class Rolling:
    """One block over frames that come in pieces: zeros stand before the first and after the last."""

    def __init__(self, block: ConvNeXt, condition: Tensor | None = None) -> None:
        self.block, self.condition = block, condition
        weight = block.depthwise.weight
        self.held = weight.new_zeros(1, block.behind, weight.shape[0])
        """Frames that later ones still need, [1, behind to behind + ahead, width]."""

    def __call__(self, frames: Float[Tensor, "1 new width"], last: bool) -> Float[Tensor, "1 ready width"]:
        """Take frames; return those that are ready."""
        span = self.block.behind + self.block.ahead
        held = torch.cat((self.held, frames), 1)
        if last:
            held = torch.cat((held, held.new_zeros(1, self.block.ahead, held.shape[2])), 1)
        if held.shape[1] <= span:
            self.held = held
            return held[:, :0]
        self.held = held[:, held.shape[1] - span :]
        return self.block.inside(held, self.condition)


class AcousticStream:
    """Codes to what the vocoder needs."""

    def __init__(self, codec: Codec, speaker: Float[Tensor, "1 dims"]) -> None:
        self.codec = codec
        self.decoder = [Rolling(block, speaker) for block in codec.decoder]  # type: ignore[arg-type]
        self.fine = [Rolling(block, speaker) for block in codec.fine]  # type: ignore[arg-type]

    def __call__(self, codes: Int[Tensor, "1 codes"], last: bool) -> Acoustics:
        """Take codes; return the frames that are ready."""
        hidden = self.codec.from_code(self.codec.values(codes))
        for layer in self.decoder:
            hidden = layer(hidden, last)
        hidden = self.codec.refine(hidden).unflatten(-1, (FRAMES_PER_CODE, -1)).flatten(1, 2)
        for layer in self.fine:
            hidden = layer(hidden, last)
        read = self.codec.read_out(hidden)
        return self.codec.sharpened(*read) if hidden.shape[1] else Acoustics(*read)


class VocoderStream:
    """What the vocoder needs to sound."""

    def __init__(self, vocoder: Vocoder) -> None:
        self.vocoder = vocoder
        self.layers = [Rolling(block) for block in vocoder.blocks]  # type: ignore[arg-type]
        device = vocoder.taper.device
        self.generator = noise_generator()
        self.mel = torch.zeros(1, 0, vocoder.spread.shape[0], device=device)
        """Frames whose filters are not known yet, [1, frames, 80]."""
        self.pitch = torch.zeros(1, 0, device=device)
        """Frames whose pulses are not made yet, and the one before them, [1, frames]; ``voiced`` likewise."""
        self.voiced = torch.zeros(1, 0, device=device)
        self.turns = torch.zeros(1, 1, dtype=torch.float64, device=device)
        self.sources = torch.zeros(2, HOP // 2, device=device)
        """Pulses and noise from half a frame before the first frame that is not filtered yet, [2, samples]."""
        self.log_bands = torch.zeros(2, 0, vocoder.spread.shape[0], device=device)
        """Filters of the frames that are not filtered yet, [2, frames, 80]."""
        self.tail = torch.zeros(1, FFT - HOP, device=device)
        """What filtered frames add to samples that are not complete, [1, samples]."""
        self.begun = False

    def __call__(self, acoustics: Acoustics, last: bool) -> Float[Tensor, " samples"]:
        """Take frames; return the samples that are complete."""
        self._take_filters(acoustics, last)
        self._take_sources(acoustics, last)
        frames = min(self.log_bands.shape[1], max(0, self.sources.shape[1] - FRAME) // HOP + 1)
        if self.sources.shape[1] < FRAME:
            frames = 0
        pieces = self.sources.unfold(1, FRAME, HOP)[:, :frames] if frames else self.sources.new_zeros(2, 0, FRAME)
        summed = self.tail
        if frames:
            both = self.vocoder.filtered(pieces, self.log_bands[:, :frames]).sum(0, keepdim=True)
            summed = overlap_add(both)
            summed[:, : self.tail.shape[1]] += self.tail
        self.sources, self.log_bands = self.sources[:, frames * HOP :], self.log_bands[:, frames:]
        ready = frames * HOP + (HOP // 2 if last else 0)
        self.tail = summed[:, frames * HOP :]
        sound = summed[0, (0 if self.begun else HOP // 2) : ready]
        self.begun = self.begun or frames > 0
        return sound

    def _take_filters(self, acoustics: Acoustics, last: bool) -> None:
        """Add the filters that are known by now."""
        self.mel = torch.cat((self.mel, acoustics.mel), 1)
        hidden = self.vocoder.enter(inputs(acoustics))
        for layer in self.layers:
            hidden = layer(hidden, last)
        known = hidden.shape[1]
        filters = torch.cat(self.vocoder.filters(hidden, self.mel[:, :known]))
        self.mel = self.mel[:, known:]
        self.log_bands = torch.cat((self.log_bands, filters), 1)

    def _take_sources(self, acoustics: Acoustics, last: bool) -> None:
        """Add the pulses and the noise of the frames whose neighbors are known by now."""
        pitch, gate = acoustics.pitch.float(), voiced(acoustics).float()
        if not self.pitch.shape[1]:  # the first frame is its own neighbor
            pitch, gate = torch.cat((pitch[:, :1], pitch), 1), torch.cat((gate[:, :1], gate), 1)
        self.pitch, self.voiced = torch.cat((self.pitch, pitch), 1), torch.cat((self.voiced, gate), 1)
        if last:
            self.pitch = torch.cat((self.pitch, self.pitch[:, -1:]), 1)
            self.voiced = torch.cat((self.voiced, self.voiced[:, -1:]), 1)
        frames = self.pitch.shape[1] - 2
        if frames > 0:
            made, self.turns = pulses_between(self.pitch, self.voiced, self.turns)
            noise = white_noise(self.generator, 1, frames).to(made.device)
            self.sources = torch.cat((self.sources, torch.cat((made, noise))), 1)
            self.pitch, self.voiced = self.pitch[:, -2:], self.voiced[:, -2:]
        if last:
            self.sources = torch.nn.functional.pad(self.sources, (0, FRAME - HOP // 2))


class MiniSoundStream:
    """The sound stream of one utterance.

    Parameters
    ----------
    codec, vocoder
        The models.
    speaker
        Whose voice it is, [1, dims].
    """

    def __init__(self, codec: Codec, vocoder: Vocoder, speaker: Float[Tensor, "1 dims"]) -> None:
        self.acoustics, self.vocoder = AcousticStream(codec, speaker), VocoderStream(vocoder)
        self.device = speaker.device
        self.new: list[int] = []
        self.wait = look_ahead(codec, vocoder) + FIRST
        """Codes to wait for before the next piece."""
        self.size = FIRST
        self.empty = True

    def push(self, code: int) -> NDArray[np.float32]:
        """Take a code; return sound where a piece is complete."""
        self.new.append(code)
        if len(self.new) < self.wait:
            return np.zeros(0, np.float32)
        self.wait = self.size = min(2 * self.size, LARGEST)
        return self._sound(last=False)

    def finish(self) -> NDArray[np.float32]:
        """Return the rest of the sound."""
        if self.empty and not self.new:
            return np.zeros(0, np.float32)
        return self._sound(last=True)

    @torch.inference_mode()
    def _sound(self, last: bool) -> NDArray[np.float32]:
        codes = torch.tensor([self.new], dtype=torch.long, device=self.device)
        self.new, self.empty = [], False
        return self.vocoder(self.acoustics(codes, last), last).clamp(-1, 1).cpu().numpy()
