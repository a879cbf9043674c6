"""One case for each acoustic module: how ours is built, what goes in, what comes out.

Weights follow from the names of the state dict and inputs from the name of the case, both by numpy, so that the
original, wherever it runs, and ours get the same numbers without a file of weights.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wandlib.systems.cosyvoice2.encoder import UpsamplingEncoder
from wandlib.systems.cosyvoice2.estimator import Estimator
from wandlib.systems.cosyvoice2.flow import Flow, FlowMatching
from wandlib.systems.cosyvoice2.hift import HiFT
from wandlib.systems.cosyvoice2.language_model import CosyVoice2LM
from wandlib.systems.cosyvoice2.reference import Reference
from wandlib.systems.cosyvoice2.relative_attention import RelativeAttention, distance_embedding
from wandlib.systems.cosyvoice2.source import HarmonicSource, PitchPredictor
from wandlib.systems.cosyvoice2.streaming import AcousticStream
from wandlib.systems.cosyvoice2.tiny import language_model

CODES = 243
HIDDEN, BLOCKS = 64, 1
CHANNELS, HEADS, HEAD_SIZE, ATTENTION, MIDDLE = 32, 2, 16, 1, 1
VOCODER = 32
WAVES = 9


def numbers(name: str, *shape: int) -> Tensor:
    """Standard normal numbers that follow from a name."""
    return torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)).float()


def fill(module: nn.Module) -> nn.Module:
    """Weights that follow from their names, of the size that keeps activations in range."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            values = numbers(name, *tensor.shape)
            if name.endswith("original0") or (tensor.ndim == 1 and name.endswith(("weight", "alpha"))):
                values = 1 + 0.1 * values
            elif tensor.ndim == 1:
                values = 0.1 * values
            else:
                values = values / math.sqrt(max(1, math.prod(tensor.shape[1:])))
            tensor.copy_(values)
    return module.eval()


def audible(vocoder: nn.Module) -> nn.Module:
    """A pitch on both sides of the threshold, and an output below the limit."""
    parts: Any = vocoder
    with torch.no_grad():
        parts.f0_predictor.classifier.weight.mul_(30)
        parts.f0_predictor.classifier.bias.fill_(20.0)
        parts.conv_post.bias[:9] = -3.0
        parts.conv_post.parametrizations.weight.original0.mul_(0.3)
    return vocoder


def encoder() -> UpsamplingEncoder:
    return UpsamplingEncoder(512, 512, 8, HIDDEN, BLOCKS)


def estimator() -> Estimator:
    return Estimator(80, CHANNELS, HEADS, HEAD_SIZE, ATTENTION, MIDDLE)


def vocoder() -> HiFT:
    return HiFT(PitchPredictor(80, VOCODER), HarmonicSource(), 80, VOCODER)


@dataclass(frozen=True)
class Case:
    """A module and a call of it.

    Attributes
    ----------
    build
        Makes ours, with any weights.
    inputs
        What goes in, by name.
    run
        Calls ours.
    shown
        Values of the output that the golden file keeps: every so many.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: dict[str, Any]
    run: Callable[..., Tensor]
    shown: int = 1

    def module(self) -> nn.Module:
        filled = fill(self.build())
        return audible(filled) if "hift" in self.name else filled

    def output(self) -> Tensor:
        with torch.no_grad():
            return self.run(self.module(), **self.inputs)

    def __str__(self) -> str:
        return self.name


def integers(name: str, count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).integers(0, CODES, (1, count)))


def flow_inputs(streaming: bool, last: bool) -> dict[str, Any]:
    return {
        "codes": integers("codes", 40),
        "reference_codes": integers("reference", 20),
        "reference_mel": numbers("mel", 1, 40, 80),
        "speaker": numbers("speaker", 1, 192),
        "streaming": streaming,
        "last": last,
    }


def encoder_inputs(streaming: bool, future: bool) -> dict[str, Any]:
    return {
        "x": numbers("x", 1, 60, 512),
        "future": numbers("future", 1, 3, 512) if future else None,
        "streaming": streaming,
    }


def estimator_inputs(streaming: bool) -> dict[str, Any]:
    return {
        "x": numbers("x", 2, 80, 120),
        "features": numbers("features", 2, 80, 120),
        "times": torch.tensor([0.3, 0.3]),
        "speaker": numbers("speaker", 2, 80),
        "prompt": numbers("prompt", 2, 80, 120),
        "streaming": streaming,
    }


def attention_inputs() -> dict[str, Any]:
    return {"x": numbers("x", 2, 30, 64), "distances": distance_embedding(30, 64, torch.device("cpu"), torch.float32)}


def vocoder_inputs(past: bool) -> dict[str, Any]:
    return {
        "mel": numbers("mel", 1, 80, 30),
        "noise": numbers("noise", 1, WAVES, 30 * 480),
        "past": 0.1 * numbers("past", 1, 1, 3840) if past else None,
    }


def call(module: nn.Module, **inputs: Any) -> Tensor:
    return module(**inputs)


def make_flow() -> Flow:
    return Flow(encoder(), FlowMatching(estimator()), codes=CODES)


CASES = [
    Case("relative attention", lambda: RelativeAttention(64, 4), attention_inputs(), call),
    Case("encoder", encoder, encoder_inputs(False, False), call, 7),
    Case("encoder, streaming", encoder, encoder_inputs(True, True), call, 7),
    Case("estimator", estimator, estimator_inputs(False), call, 3),
    Case("estimator, streaming", estimator, estimator_inputs(True), call, 3),
    Case("flow", make_flow, flow_inputs(False, True), call),
    Case("flow, streaming", make_flow, flow_inputs(True, False), call),
    Case("pitch", lambda: PitchPredictor(80, VOCODER), {"mel": numbers("mel", 1, 80, 30)}, call),
    Case(
        "source",
        HarmonicSource,
        {"pitch": 100 * numbers("pitch", 1, 30).abs(), "noise": numbers("noise", 1, WAVES, 30 * 480)},
        call,
        3,
    ),
    Case("hift", vocoder, vocoder_inputs(False), lambda m, mel, noise, past: m(mel, noise, past)[0]),
    Case("hift, going on", vocoder, vocoder_inputs(True), lambda m, mel, noise, past: m(mel, noise, past)[0]),
]


def filled_language_model(version: int) -> CosyVoice2LM:
    """A language model whose weights follow from their names."""
    model = language_model(version)
    fill(model)
    return model


PROMPT = ([5, 6, 7, 8], [9, 10, 11])
"""Text tokens, and codes of a reference."""


def language_model_logits(version: int) -> Tensor:
    model = filled_language_model(version)
    with torch.no_grad():
        return model(torch.tensor([model.config.prompt(*PROMPT)])).logits


def noise_of(samples: int) -> Tensor:
    """The noise of a piece of so many samples."""
    return numbers(f"noise {samples}", 1, WAVES, samples)


def stream_inputs() -> dict[str, Tensor]:
    return {
        "codes": integers("speech", 120),
        "old": integers("old", 30),
        "mel": numbers("mel", 1, 60, 80),
        "speaker": numbers("speaker", 1, 192),
    }


class NamedNoise(HiFT):
    """A vocoder whose noise follows from its length."""

    def draw(self, frames: int, generator: torch.Generator) -> Tensor:
        return noise_of(frames * self.samples)


def streamed() -> Tensor:
    """Codes to sound, piece by piece."""
    flow: Any = fill(make_flow())
    vocoder: Any = audible(fill(NamedNoise(PitchPredictor(80, VOCODER), HarmonicSource(), 80, VOCODER)))
    given = stream_inputs()
    reference = Reference(given["old"][0].tolist(), given["mel"], given["speaker"])
    stream = AcousticStream(flow, vocoder, reference, torch.Generator())
    pieces = [stream.push(code) for code in given["codes"][0].tolist()]
    return torch.from_numpy(np.concatenate([*pieces, stream.finish()]))
