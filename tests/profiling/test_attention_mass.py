"""attention_mass: the table of a map that is known, and of real models against a loop over their attention maps."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch
from naive import positions
from tiny_models import LANGUAGE_MODELS, SPEECH_DECODERS, VOCABULARY, Tiny
from torch import Tensor, nn
from transformers import BloomConfig, BloomForCausalLM

from wandlib.attention.conversion import convert
from wandlib.attention.models import base_decoder
from wandlib.profiling.attention_mass import AttentionMass, attention_mass, suggest_blocks, suggest_window

QWEN2 = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "qwen2")


def utterances(time: int = 20) -> dict[str, Tensor]:
    """Two utterances, one left-padded, each with a prefix of its own length and a later block of conditioning."""
    padding = torch.arange(time) < torch.tensor([[0], [3]])
    conditioning = (torch.arange(time) < torch.tensor([[5], [8]])) | (torch.arange(time) == 15)
    return {
        "inputs_embeds": torch.randn(2, time, 32),
        "conditioning": conditioning & ~padding,
        "attention_mask": (~padding).long(),
        "position_ids": positions(padding),
    }


@pytest.mark.parametrize("tiny", LANGUAGE_MODELS + SPEECH_DECODERS, ids=str)
@torch.no_grad()
def test_mass_is_what_a_loop_over_the_maps_finds(tiny: Tiny) -> None:
    model = tiny.build()
    batch = utterances()
    implementation = model.config._attn_implementation
    mass = attention_mass(model, batch, windows=(2, 4))
    assert model.config._attn_implementation == implementation

    decoder = base_decoder(model)
    model.set_attn_implementation("eager")
    inputs = {name: tensor for name, tensor in batch.items() if name != "conditioning"}
    maps = decoder(**inputs, use_cache=False, output_attentions=True).attentions
    generated = batch["attention_mask"].bool() & ~batch["conditioning"]
    for layer, weights in enumerate(maps):
        prefix, near, queries = 0.0, 0.0, 0
        for sample, query in generated.nonzero().tolist():
            row, queries = weights[sample, :, query], queries + 1
            prefix = prefix + row[:, batch["conditioning"][sample]].sum(-1)
            last_two = [key for key in range(query + 1) if generated[sample, key]][-2:]
            near = near + row[:, last_two].sum(-1)
        assert torch.allclose(mass.prefix[layer], prefix / queries, atol=1e-5)
        assert torch.allclose(mass.covered(2)[layer], (prefix + near) / queries, atol=1e-5)
    assert torch.allclose(mass.prefix + mass.generated, torch.ones_like(mass.prefix), atol=1e-4)


@torch.no_grad()
def test_mass_by_block_is_what_a_loop_over_the_maps_finds() -> None:
    """Blocks counted from the kinds, or told; each row's begin elsewhere, one row is padded."""
    rows = ["cccccgggccggggcgggcccggg", "pppcccccccggggcggggggccg"]
    symbols = torch.tensor([[ord(kind) for kind in row] for row in rows])
    conditioning, padding = symbols == ord("c"), symbols == ord("p")
    block = [[0] * 3 + [1] * 5 + [2] * 6 + [3] * 4 + [4] * 6, [0] * 6 + [1] * 8 + [2] * 7 + [3] * 3]
    ids = torch.randint(1, VOCABULARY, symbols.shape)
    batch = {"input_ids": ids, "conditioning": conditioning, "attention_mask": (~padding).long()}
    batch["position_ids"] = positions(padding)
    model = QWEN2.build()
    mass = attention_mass(model, batch, pinned=3)
    model.set_attn_implementation("eager")
    given = {name: tensor for name, tensor in batch.items() if name != "conditioning"}
    maps = model(**given, use_cache=False, output_attentions=True).attentions
    expected, on_pinned, queries = torch.zeros(3, 4, 4), torch.zeros(3, 4), 0
    for sample, query in [(s, q) for s in range(2) for q in range(24) if rows[s][q] == "g"]:
        queries += 1
        for key in [key for key in range(query) if rows[sample][key] == "c"]:
            for layer in range(3):
                weight = maps[layer][sample, :, query, key]
                if block[sample][key] == 0:
                    on_pinned[layer] += weight
                else:
                    expected[layer, :, block[sample][query] - block[sample][key]] += weight
    assert mass.by_block is not None
    assert torch.allclose(mass.by_block, expected / queries, atol=1e-5)
    assert torch.allclose(mass.pinned, on_pinned / queries, atol=1e-5)
    told = attention_mass(model, batch | {"block": torch.tensor(block)}).by_block
    assert told is not None
    assert torch.equal(told, mass.by_block)
    assert attention_mass(model, batch).by_block is None
    with pytest.raises(ValueError, match="at least 0"):
        attention_mass(model, batch, pinned=-1)


@pytest.mark.parametrize(("coverage", "blocks"), [(0.6, 1), (0.8, 2), (0.95, 4), (1.0, 4), (0.1, 1)])
def test_suggested_blocks_are_the_fewest(coverage: float, blocks: int) -> None:
    """Of the conditioning's .6 and .4, some is pinned and some on text of age 0 to 3."""
    by_block = torch.tensor([[[0.1, 0.2, 0.0, 0.2]], [[0.1, 0.1, 0.0, 0.1]]])
    mass = replace(known(), by_block=by_block)
    assert torch.allclose(mass.pinned, torch.tensor([[0.1], [0.1]]))
    kept = [1 - float(by_block[..., count:].sum(-1).mean()) for count in range(1, 5)]
    assert kept == pytest.approx([0.7, 0.85, 0.85, 1.0])
    assert suggest_blocks(mass, coverage) == blocks
    with pytest.raises(ValueError, match="does not tell text blocks apart"):
        suggest_blocks(known(), coverage)


def test_one_map_lives_at_a_time() -> None:
    """When a layer has made its T x T map, those of the layers before it are gone."""
    model = QWEN2.build()
    maps: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def note(module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> None:
        maps.append(weakref.ref(output[1]))
        alive.append(sum(seen() is not None for seen in maps))

    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(note)
    attention_mass(model, utterances())
    assert alive == [1] * len(model.model.layers)
    assert all(seen() is None for seen in maps)


def packed(lengths: list[int]) -> dict[str, Tensor]:
    """One row of utterances, each with 5 conditioning tokens at its start, and padding on the right."""
    flags = [torch.arange(length) < 5 for length in lengths]
    return {
        "input_ids": torch.randint(1, VOCABULARY, (1, sum(lengths) + 3)),
        "conditioning": torch.cat([*flags, torch.zeros(3, dtype=torch.bool)])[None],
        "attention_mask": (torch.arange(sum(lengths) + 3) < sum(lengths))[None].long(),
        "position_ids": torch.cat([*(torch.arange(length) for length in lengths), torch.zeros(3, dtype=torch.long)])[
            None
        ],
    }


@pytest.mark.parametrize("tiny", LANGUAGE_MODELS, ids=str)
def test_utterances_packed_into_a_row_are_measured_apart(tiny: Tiny) -> None:
    """Each weighs as many queries as it has generated tokens."""
    lengths = [12, 20, 7]
    batch, model = packed(lengths), tiny.build()
    whole = attention_mass(model, batch)
    prefix, by_distance = torch.zeros_like(whole.prefix), torch.zeros_like(whole.by_distance)
    assert by_distance.shape[-1] == 15
    for ids, length in zip(batch["input_ids"][:, :-3].split(lengths, 1), lengths, strict=True):
        one = attention_mass(model, {"input_ids": ids, "conditioning": (torch.arange(length) < 5)[None]})
        share = (length - 5) / sum(each - 5 for each in lengths)
        prefix += share * one.prefix
        by_distance[..., : length - 5] += share * one.by_distance
    assert torch.allclose(whole.prefix, prefix, atol=1e-5)
    assert torch.allclose(whole.by_distance, by_distance, atol=1e-5)


def test_packed_rows_that_cannot_be_told_apart_are_refused() -> None:
    batch, model = packed([12, 9]), QWEN2.build()
    with pytest.raises(ValueError, match="give block"):
        attention_mass(model, batch, pinned=3)
    assert attention_mass(model, batch | {"block": torch.zeros_like(batch["input_ids"])}).by_block is not None
    with pytest.raises(ValueError, match="padded on the right only"):
        attention_mass(model, {name: value.roll(3, 1) for name, value in batch.items()})
    bloom = BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4))
    bloom.transformer.forward = without_positions(bloom.transformer.forward)
    with pytest.raises(ValueError, match=r"BloomModel does not keep the utterances of a row .* apart"):
        attention_mass(bloom, batch)


def without_positions(forward: Any) -> Any:
    return lambda *args, position_ids=None, **kwargs: forward(*args, **kwargs)


def test_dropout_is_off_and_every_mode_comes_back() -> None:
    batch = utterances()
    model = convert(QWEN2.build(attention_dropout=0.5), 2)
    expected = attention_mass(model, batch)
    model.train()
    model.model.layers[1].eval()
    modes = [part.training for part in model.modules()]
    assert torch.equal(attention_mass(model, batch).by_distance, expected.by_distance)
    assert [part.training for part in model.modules()] == modes


def test_a_converted_model_is_measured_as_its_own_teacher() -> None:
    batch = utterances()
    expected = attention_mass(QWEN2.build(), batch)
    mass = attention_mass(convert(QWEN2.build(), 2), batch)
    assert torch.equal(mass.by_distance, expected.by_distance)


def known() -> AttentionMass:
    """Two layers of one head: layer 0 looks back 0 and 1 tokens, layer 1 also 9 tokens."""
    by_distance = torch.zeros(2, 1, 10)
    by_distance[0, 0, :2] = torch.tensor([0.3, 0.1])
    by_distance[1, 0, [0, 9]] = torch.tensor([0.2, 0.4])
    return AttentionMass(torch.tensor([[0.6], [0.4]]), by_distance, (1, 2, 16))


def test_table_of_a_known_map() -> None:
    """covered = prefix + generated x share, the identity of the paper's table."""
    rows = known().table()
    assert [row["window"] for row in rows] == [1, 2, 16]
    assert [row["covered"] for row in rows] == pytest.approx([0.75, 0.8, 1.0])
    for row in rows:
        assert row["prefix"] == pytest.approx(0.5)
        assert row["covered"] == pytest.approx(row["prefix"] + row["generated"] * row["share"])


@pytest.mark.parametrize(("coverage", "window"), [(0.7, 1), (0.8, 2), (0.95, 10), (1.0, 10), (0.1, 1)])
def test_the_suggested_window_is_the_smallest(coverage: float, window: int) -> None:
    assert suggest_window(known(), coverage) == window
    assert float(known().covered(window).mean()) >= coverage - 1e-6
    assert window == 1 or float(known().covered(window - 1).mean()) < coverage


@pytest.mark.parametrize("coverage", [0.0, 1.1, -1.0])
def test_impossible_coverage_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        suggest_window(known(), coverage)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditioning": None}, "needs batch"),
        ({"input_ids": None}, r"needs batch\['input_ids'\]"),
        ({"input_ids": [[1, 2, 3, 4, 5]]}, r"batch\['input_ids'\] is a list: give a tensor"),
        ({"conditioning": [[True] * 5] * 2}, r"batch\['conditioning'\] is a list"),
        ({"conditioning": torch.ones(2, 3, dtype=torch.bool)}, "one flag for each token"),
        ({"conditioning": torch.ones(2, 5, dtype=torch.bool)}, "no generated query"),
    ],
)
def test_batches_that_cannot_be_measured_are_refused(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no checks of types either
    batch = {"input_ids": torch.randint(1, VOCABULARY, (2, 5))} | change
    with pytest.raises(ValueError, match=message):
        attention_mass(QWEN2.build(), {name: value for name, value in batch.items() if value is not None})
