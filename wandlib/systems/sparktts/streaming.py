"""Sound while codes are still being generated, equal to the sound of all codes at once.

The codec's decoder is made of convolutions: a sample depends on a bounded number of frames to both sides. A piece is
decoded with that many frames around it, and what the missing neighbors could change is cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
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


def decoded_in_pieces(
    codec: BiCodec, codes: Iterable[int], tokens: Int[Tensor, "1 tokens"], context: int, piece: int = PIECE
) -> Iterator[Float[Tensor, " samples"]]:
    """Sound, piece by piece, of codes that come one by one."""
    held: list[int] = []
    done = 0
    for code in codes:
        held.append(code)
        if len(held) - done >= piece + context:
            yield _decode(codec, held, tokens, done, done + piece, context)
            done += piece
    if done < len(held):
        yield _decode(codec, held, tokens, done, len(held), context)


@torch.inference_mode()
def _decode(codec: BiCodec, codes: list[int], tokens: Tensor, start: int, end: int, context: int) -> Tensor:
    """Sound of ``codes[start:end]``, decoded with their neighbors."""
    first, last = max(0, start - context), min(len(codes), end + context)
    sound = codec.decode(torch.tensor([codes[first:last]], device=tokens.device), tokens)[0]
    samples = len(sound) // (last - first)
    return sound[(start - first) * samples : (end - first) * samples]
