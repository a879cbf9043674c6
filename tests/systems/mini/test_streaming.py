"""The embedded voice's codec and vocoder in pieces: their true look-ahead, the sound of the whole, joints unheard."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from wandlib.systems import load_system
from wandlib.systems.mini import MiniSystem
from wandlib.systems.mini.codec import CODES, Acoustics, Codec
from wandlib.systems.mini.features import SAMPLES_PER_CODE
from wandlib.systems.mini.streaming import FIRST, AcousticStream, MiniSoundStream, VocoderStream, look_ahead
from wandlib.systems.mini.vocoder import Vocoder

TEXT = "The birch canoe slid on the smooth planks."


@pytest.fixture(scope="module")
def tts() -> MiniSystem:
    system = load_system("mini")
    assert isinstance(system, MiniSystem)
    return system


@pytest.fixture(scope="module", params=[None, 3], ids=["as far as behind", "limited look-ahead"])
def small(request: pytest.FixtureRequest) -> tuple[Codec, Vocoder]:
    """Random, in the shipped depth, with neighbors that count as much as the frame itself."""
    torch.manual_seed(0)
    ahead = None if request.param is None else 1
    codec, vocoder = Codec(16, 1, 6, 16, 2, 4, look_ahead=request.param), Vocoder(16, 4, ahead)
    for module in (*codec.modules(), *vocoder.modules()):
        for name, parameter in module.named_parameters(recurse=False):
            if name == "scale":
                nn.init.ones_(parameter)
            elif parameter.ndim > 1 and not bool(parameter.any()):
                nn.init.normal_(parameter, std=0.1)
    return codec.eval(), vocoder.eval()


def test_the_look_ahead_is_that_of_the_network(small: tuple[Codec, Vocoder]) -> None:
    """Gradients of the sound of one code reach just so many codes ahead, and no further."""
    codec, vocoder = small
    ahead, here, length = look_ahead(codec, vocoder), 5, 40
    values = codec.values(torch.randint(CODES, (1, length))).requires_grad_()
    sound = vocoder(codec.sharpened(*codec.reconstruct(values, torch.randn(1, 4))))
    sound[0, here * SAMPLES_PER_CODE : (here + 1) * SAMPLES_PER_CODE].square().sum().backward()
    assert values.grad is not None
    reached = values.grad[0].abs().sum(-1).nonzero().flatten()
    assert int(reached.max()) - here == ahead == (23 if codec.config["look_ahead"] is None else 5)


NEEDED = 7
"""Codes until there is sound: those that the codec and the vocoder look ahead, and the first two."""
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 2**31))
@torch.inference_mode()
def test_any_pieces_of_codes_give_the_acoustics_of_the_whole(
    small: tuple[Codec, Vocoder], sizes: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(CODES, (1, sum(sizes)), generator=generator)
    speaker = torch.randn(1, 4, generator=generator)
    stream = AcousticStream(small[0], speaker)
    made = [stream(piece, n == len(sizes) - 1) for n, piece in enumerate(codes.split(sizes, dim=1))]
    for part, expected in zip(zip(*made, strict=True), small[0].decode(codes, speaker), strict=True):
        torch.testing.assert_close(torch.cat(part, 1), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 2**31))
@torch.inference_mode()
def test_any_pieces_of_acoustics_give_the_sound_of_the_whole(
    small: tuple[Codec, Vocoder], sizes: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = sum(sizes)
    pitch, voicing = torch.randn(1, frames, generator=generator), torch.rand(1, frames, generator=generator)
    whole = Acoustics(torch.randn(1, frames, 80, generator=generator), pitch, voicing)
    pieces = [Acoustics(*parts) for parts in zip(*(part.split(sizes, dim=1) for part in whole), strict=True)]
    stream = VocoderStream(small[1])
    made = torch.cat([stream(piece, n == len(sizes) - 1) for n, piece in enumerate(pieces)])
    expected = small[1](whole)[0]
    torch.testing.assert_close(made, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("count", [0, 1, 2, NEEDED - 1, NEEDED, NEEDED + 1, 60])
def test_the_stream_is_as_long_as_the_codes(tts: MiniSystem, count: int) -> None:
    voice = tts.voice("ruth")
    codes = np.random.default_rng(count).integers(0, CODES, count)
    stream = MiniSoundStream(tts.codec, tts.vocoder, voice.vector)
    pieces = [stream.push(int(code)) for code in codes]
    first = next((n for n, piece in enumerate(pieces) if len(piece)), None)
    assert look_ahead(tts.codec, tts.vocoder) + FIRST == NEEDED
    assert first == (NEEDED - 1 if count >= NEEDED else None)
    sound = np.concatenate([*pieces, stream.finish()])
    assert len(sound) == SAMPLES_PER_CODE * count
    np.testing.assert_allclose(sound, tts.decode(codes, voice), atol=1e-4)


def test_sound_comes_while_codes_come(tts: MiniSystem) -> None:
    """The first sound after seven codes, then again after at most 16; all of it is what synthesize gives."""
    steps: list[object] = []
    stream, after = tts.stream(TEXT, "henry", "window", on_step=steps.append, keep=True), []
    for _ in stream:
        after.append(len(steps))
    speech = tts.synthesize(TEXT, "henry", "window")
    assert after[0] == NEEDED - 1  # the step after a code comes when the next one is asked for
    assert max(np.diff(after)) <= 16
    assert stream.speech.codes.tolist() == speech.codes.tolist()
    np.testing.assert_allclose(stream.speech.waveform, speech.waveform, atol=1e-4)
    np.testing.assert_allclose(tts.decode(speech.codes, tts.voice("henry")), speech.waveform, atol=1e-4)
    assert stream.trace.first_sound_milliseconds < 1000 * stream.trace.chunks[-1].ready
    assert len(stream.trace.chunks) == len(after)


def spectrum_at(sound: NDArray[np.float32], place: int) -> NDArray[np.float64]:
    """Decibels in 32 bands of the 20 ms around a sample."""
    piece = sound[place - 160 : place + 160] * np.hanning(320)
    power = np.abs(np.fft.rfft(piece)) ** 2
    return 10 * np.log10(np.add.reduceat(power[1:], np.arange(0, 160, 5)) + 1e-9)


def test_no_clicks_at_the_joints(tts: MiniSystem) -> None:
    """The spectra there are those of the whole; pieces that are decoded without their neighbors differ by far."""
    voice = tts.voice("henry")
    sounds = list(tts.stream(TEXT, "henry", "window"))
    joined, codes = np.concatenate(sounds), tts.synthesize(TEXT, "henry", "window").codes
    whole = tts.decode(codes, voice)
    joints = np.cumsum([len(sound) for sound in sounds])[:-1]
    difference = [np.abs(spectrum_at(joined, place) - spectrum_at(whole, place)).max() for place in joints]
    assert len(joints) >= 3
    assert max(difference) < 0.1
    blind = np.concatenate([tts.decode(piece, voice) for piece in np.split(codes, range(16, len(codes), 16))])
    cuts = range(16 * SAMPLES_PER_CODE, len(blind) - 640, 16 * SAMPLES_PER_CODE)
    clicks = [np.abs(spectrum_at(blind, place) - spectrum_at(whole, place)).max() for place in cuts]
    assert min(clicks) > 1


def test_clauses_have_prompts_of_their_own(tts: MiniSystem) -> None:
    words = iter(["Good mor", "ning. And a", " good evening."])
    spoken = [tts.synthesize(text, "ruth", "window").waveform for text in ("Good morning.", "And a good evening.")]
    stream = tts.stream(words, "ruth", "window", long="parts")
    np.testing.assert_allclose(np.concatenate(list(stream)), np.concatenate(spoken), atol=1e-4)
    assert len(stream.trace.parts) == 2
