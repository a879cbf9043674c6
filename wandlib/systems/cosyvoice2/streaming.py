"""Sound while the codes still come.

A piece of sound is made whenever 25 new codes are there and three more to look at; the pieces double up to 100 codes.
The first is longer, so that reference and speech together are whole blocks of 25. The flow runs anew over all codes so
far, under a mask that hides later blocks; the vocoder goes on from the last 8 frames, whose source it is given and
over which the pieces are cross-faded.

Source: CosyVoice 2, arXiv 2412.10117, section 2.5, and the published schedule. Unlike upstream's, the length of the
pieces starts at 25 in every utterance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wandlib.systems.cosyvoice2.flow import Flow
from wandlib.systems.cosyvoice2.hift import HiFT
from wandlib.systems.cosyvoice2.reference import FRAMES_PER_CODE, Reference
from wandlib.systems.streaming import Sound

KEPT_FRAMES = 8
"""Mel frames that the next piece starts with again."""
LONGEST = 4
"""A piece grows to so many times the first."""


@dataclass
class Tail:
    """The end of a piece of sound, for the next to go on from."""

    mel: Float[Tensor, "1 mels frames"]
    source: Float[Tensor, "1 1 samples"]
    sound: Float[Tensor, "1 samples"]


class AcousticStream:
    """Codes in, pieces of sound out; a :class:`wandlib.systems.streaming.SoundStream`.

    Parameters
    ----------
    flow, vocoder
        The models.
    reference
        The voice.
    generator
        Of the noise in the vocoder's source; on the CPU.
    hop
        Codes of the first piece; the block of the streaming mask.
    whole
        Wait for all codes: the sound is made in one piece.
    """

    def __init__(
        self,
        flow: Flow,
        vocoder: HiFT,
        reference: Reference,
        generator: torch.Generator,
        hop: int = 25,
        *,
        whole: bool = False,
    ) -> None:
        self.flow, self.vocoder, self.reference, self.generator = flow, vocoder, reference, generator
        self.hop, self.longest, self.whole = hop, LONGEST * hop, whole
        self.codes: list[int] = []
        self.sent = 0
        """Codes that have become sound."""
        self.tail: Tail | None = None
        self.fill = -len(reference.codes) % hop
        """Codes that the first piece has more."""

    def push(self, code: int) -> Sound:
        """Take a code; return the sound of a piece if it is complete, else nothing."""
        self.codes.append(code)
        size = self.hop + (self.fill if self.sent == 0 else 0)
        if self.whole or len(self.codes) - self.sent < size + self.flow.ahead:
            return np.zeros(0, np.float32)
        sound = self.piece(last=False)
        self.sent += size
        self.hop = min(self.longest, 2 * self.hop)
        return sound.cpu().numpy()

    def finish(self) -> Sound:
        """Return what is left: the last piece, made with full view of the utterance."""
        if len(self.codes) == self.sent:
            return np.zeros(0, np.float32)
        return self.piece(last=True).cpu().numpy()

    def piece(self, last: bool) -> Float[Tensor, " samples"]:
        """Return the sound of the codes that have not been sent."""
        device = self.reference.mel.device
        mel = self.flow(
            torch.tensor([self.codes], device=device),
            torch.tensor([self.reference.codes], device=device, dtype=torch.long),
            self.reference.mel,
            self.reference.speaker,
            streaming=not last,
            last=last,
        )[..., FRAMES_PER_CODE * self.sent :]
        tail = self.tail
        if tail is not None:
            mel = torch.cat((tail.mel, mel), -1)
        noise = self.vocoder.draw(mel.shape[-1], self.generator).to(device)
        sound, source = self.vocoder(mel, noise, None if tail is None else tail.source)
        if tail is not None:
            sound = cross_fade(tail.sound, sound)
        if last:
            return sound[0]
        kept = KEPT_FRAMES * self.vocoder.samples
        self.tail = Tail(mel[..., -KEPT_FRAMES:], source[..., -kept:], sound[:, -kept:])
        return sound[0, :-kept]


def cross_fade(before: Float[Tensor, "1 overlap"], after: Float[Tensor, "1 samples"]) -> Float[Tensor, "1 samples"]:
    """Return ``after`` whose first samples go over from ``before`` in the two halves of a Hamming window."""
    overlap = before.shape[1]
    window = torch.hamming_window(2 * overlap, periodic=False, device=after.device, dtype=after.dtype)
    mixed = after[:, :overlap] * window[:overlap] + before * window[overlap:]
    return torch.cat((mixed, after[:, overlap:]), 1)
