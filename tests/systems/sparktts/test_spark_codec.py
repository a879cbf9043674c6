"""BiCodec: golden values from the published code, and facts that hold without it."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest
import spark_parts
import torch
from sinusoids import sinusoid

from wandlib.systems.acoustics.fsq import FiniteScalarQuantizer
from wandlib.systems.acoustics.weight_norm import fold_weight_norm, unfold_weight_norm
from wandlib.systems.sparktts.streaming import context_frames, decoded_in_pieces

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


@pytest.mark.parametrize("length", [1, 30, 150])
def test_sound_in_pieces_is_the_sound_of_the_whole(length: int) -> None:
    settings = {**spark_parts.SETTINGS, "prenet": {**spark_parts.SETTINGS["prenet"], "sample_ratios": [1, 1]}}
    codec = spark_parts.fill(spark_parts.BiCodec(settings)).double()  # the generator amplifies rounding
    codes = (sinusoid("long", (1, length)).abs() * 64).long()
    with torch.no_grad():
        whole = codec.decode(codes, spark_parts.TOKENS[:1])[0]
    pieces = list(
        decoded_in_pieces(codec, codes[0].tolist(), spark_parts.TOKENS[:1], context_frames(settings), piece=10)
    )
    assert len(pieces) > 1 or length < 60
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=0, atol=1e-9)


def test_context_is_not_larger_than_needed() -> None:
    """With half of it, a piece differs: the number is a bound, and of the right size."""
    settings = {**spark_parts.SETTINGS, "prenet": {**spark_parts.SETTINGS["prenet"], "sample_ratios": [1, 1]}}
    codec = spark_parts.fill(spark_parts.BiCodec(settings)).double()  # the generator amplifies rounding
    codes = (sinusoid("long", (1, 150)).abs() * 64).long()
    with torch.no_grad():
        whole = codec.decode(codes, spark_parts.TOKENS[:1])[0]
    short = torch.cat(list(decoded_in_pieces(codec, codes[0].tolist(), spark_parts.TOKENS[:1], 8, piece=10)))
    assert (short - whole).abs().max() > 1e-4
