"""BiCodec: golden values from the published code, and facts that hold without it."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest
import spark_parts
import torch
from numpy.typing import NDArray
from sinusoids import sinusoid

from wandlib.systems.acoustics.fsq import FiniteScalarQuantizer
from wandlib.systems.acoustics.weight_norm import fold_weight_norm, unfold_weight_norm
from wandlib.systems.sparktts.streaming import CodecStream, context_frames

GOLDEN = Path(__file__).with_name("golden.safetensors")


def test_golden_values() -> None:
    golden.check(GOLDEN, spark_parts.outputs(spark_parts.build(spark_parts.published_weights())))


def test_folding_is_the_inverse_of_unfolding() -> None:
    plain = spark_parts.build().state_dict()
    names = {name for name in plain if name.startswith("decoder") and name.endswith("weight")}
    folded = fold_weight_norm(unfold_weight_norm(plain, names))
    assert folded.keys() == plain.keys()
    for name in names:
        torch.testing.assert_close(folded[name], plain[name])


def test_a_gain_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no a\.weight_v"):
        fold_weight_norm({"a.weight_g": torch.ones(1)})


def test_every_index_of_the_scalar_quantizer_comes_back() -> None:
    """``encode`` undoes ``decode`` when both maps are the identity, for even and odd levels."""
    quantizer = FiniteScalarQuantizer(3, [4, 3, 5])
    indices = torch.arange(quantizer.size)[None]
    with torch.no_grad():
        for layer in (quantizer.project_in, quantizer.project_out):
            layer.weight.copy_(torch.eye(3))
            layer.bias.zero_()
        # Inside the bound, so that rounding finds the same level: tanh is inverted first.
        levels, middle = torch.tensor(quantizer.levels), torch.tensor(quantizer.levels) // 2
        digits = quantizer.decode(indices) * middle
        half = (levels - 1) * 1.001 / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        latents = ((digits + offset) / half).atanh() - (offset / half).atanh()
        assert torch.equal(quantizer.encode(latents), indices)


SETTINGS = {**spark_parts.SETTINGS, "prenet": {**spark_parts.SETTINGS["prenet"], "sample_ratios": [1, 1]}}


def in_pieces(
    length: int, context: int, piece: int | None = 10
) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Sound in pieces, and the sound of all codes at once."""
    codec = spark_parts.fill(spark_parts.BiCodec(SETTINGS)).double()  # the generator amplifies rounding
    codes = (sinusoid("long", (1, length)).abs() * 64).long()
    with torch.no_grad():
        whole = codec.decode(codes, spark_parts.TOKENS[:1])[0]
    stream = CodecStream(codec, lambda: spark_parts.TOKENS[:1], context, piece)
    pieces = [stream.push(code) for code in codes[0].tolist()]
    return [piece for piece in (*pieces, stream.finish()) if len(piece)], whole.float().numpy()


@pytest.mark.parametrize("length", [1, 30, 150])
def test_sound_in_pieces_is_the_sound_of_the_whole(length: int) -> None:
    pieces, whole = in_pieces(length, context_frames(SETTINGS))
    assert len(pieces) > 1 or length < 60
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-6)


def test_context_is_not_larger_than_needed() -> None:
    """With a fifth of it, a piece differs: the number is a bound, and of the right size."""
    pieces, whole = in_pieces(150, context_frames(SETTINGS) // 5)
    assert np.abs(np.concatenate(pieces) - whole).max() > 1e-4


def test_all_at_once() -> None:
    pieces, whole = in_pieces(150, context_frames(SETTINGS), piece=None)
    assert len(pieces) == 1
    np.testing.assert_allclose(pieces[0], whole, rtol=0, atol=1e-6)
