"""Sound while codes are still being generated, equal to the sound of all codes at once.

The codec's decoder is made of convolutions: a sample depends on a bounded number of frames to both sides. A piece is
decoded with that many frames around it, and what the missing neighbors could change is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from wandlib.systems.sparktts.bicodec import BiCodec
from wandlib.systems.sparktts.semantic import SAMPLING_LAYERS
from wandlib.systems.sparktts.wave_generator import DILATIONS, KERNEL

PIECE = 25
"""Codes a piece: half a second."""


def context_frames(settings: Mapping[str, Any]) -> int:
    """Frames to each side on which a sample depends; ``settings`` as for :class:`BiCodec`.

    A convolution of kernel 7 reaches 3 frames; the transposed convolutions and the dilated ones after them reach fewer
    frames the higher their rate.
    """
    prenet, generator = settings["prenet"], settings["decoder"]
    convolutions = 1 + prenet["vocos_num_layers"] + len(prenet.get("sample_ratios", (1, 1))) * (1 + SAMPLING_LAYERS)
    reach = float((KERNEL // 2) * (convolutions + 1))  # one more: the first convolution of the generator
    rate = 1
    for stride, kernel in zip(generator["rates"], generator["kernel_sizes"], strict=True):
        reach += kernel / rate / stride
        rate *= stride
        reach += sum(DILATIONS) * (KERNEL // 2) / rate
    return int(reach + (KERNEL // 2) / rate) + 1


class CodecStream:
    """Codes in, sound out, for one utterance (a :class:`wandlib.systems.streaming.SoundStream`).

    Parameters
    ----------
    codec
        What makes the sound.
    voice
        Global tokens, [1, tokens], asked for with the first sound: a described voice is generated before the codes.
    context
        Frames to each side of a piece, see :func:`context_frames`.
    piece
        Codes a piece; None: all of them at the end.
    """

    def __init__(
        self, codec: BiCodec, voice: Callable[[], Int[Tensor, "1 tokens"]], context: int, piece: int | None = PIECE
    ) -> None:
        self._codec, self._voice, self._context, self._piece = codec, voice, context, piece
        self._codes: list[int] = []
        self._done = 0

    def push(self, code: int) -> NDArray[np.float32]:
        """Take the next code; return the sound that is complete by now, often none."""
        self._codes.append(code)
        if self._piece is None or len(self._codes) - self._done < self._piece + self._context:
            return np.zeros(0, np.float32)
        return self._decode(self._done + self._piece)

    def finish(self) -> NDArray[np.float32]:
        """Return the rest of the sound."""
        return self._decode(len(self._codes)) if self._done < len(self._codes) else np.zeros(0, np.float32)

    @torch.inference_mode()
    def _decode(self, end: int) -> NDArray[np.float32]:
        """Sound of the codes up to ``end``, decoded with their neighbors."""
        first, last = max(0, self._done - self._context), min(len(self._codes), end + self._context)
        device = next(self._codec.parameters()).device
        codes = torch.tensor([self._codes[first:last]], device=device)
        sound = self._codec.decode(codes, self._voice().to(device))[0]
        samples = len(sound) // (last - first)
        piece = sound[(self._done - first) * samples : (end - first) * samples]
        self._done = end
        return piece.float().cpu().numpy()
