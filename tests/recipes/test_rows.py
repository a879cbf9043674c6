"""Rows of the recipe: half of them streams, everything once a pass, and what a position of the teacher looks at."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_rows import talk

from recipes.mini import train_teacher
from recipes.mini.rows import (
    MAX_GAP,
    PASSES,
    PINNED,
    REFERENCE,
    ROW_TOKENS,
    Passes,
    Speech,
    collator,
    in_batches,
    readers,
    row_length,
)
from recipes.mini.spoken import Spoken
from wandlib.systems.mini.prompt import BEGIN, END, FIRST_CODE, FIRST_SYMBOL, SPEECH, TEXT


def test_a_pass_has_everything_once_and_as_many_streams_as_single_utterances() -> None:
    speech = Speech(talk(400))
    for seed in (0, 1):
        rows = speech.rows(seed)
        assert sorted(number for row in rows for number in row["utterances"]) == list(range(400))
        streams = [row for row in rows if len(row["blocks"]) > 1]
        # A stream may end after its first block, so that somewhat more than half have one.
        assert 0.3 < len(streams) / len(rows) < 0.55
        assert max(map(row_length, rows)) <= ROW_TOKENS
        for row in rows:
            assert len({(one.speaker, one.speed) for one in map(speech.spoken.__getitem__, row["utterances"])}) == 1
    assert speech.rows(0) == speech.rows(0) != speech.rows(1)


@pytest.mark.parametrize("number", [2, 3])
def test_a_row_holds_its_utterances_after_another_one_of_the_reader(number: int) -> None:
    """At one speaking rate, and at the shift of the pass."""
    speech, shift = Speech(talk(60)), number % 2
    for row in speech.rows(number):
        assert row["pinned"][0] == BEGIN
        source = row["pinned"][1] - FIRST_CODE
        assert row["pinned"][1:] == (speech.spoken[source].codes[shift, :REFERENCE] + FIRST_CODE).tolist()
        assert source not in row["utterances"]
        assert speech.spoken[source].speaker == speech.spoken[row["utterances"][0]].speaker
        assert speech.spoken[source].speed == speech.spoken[row["utterances"][0]].speed
        for number, (text, codes) in zip(row["utterances"], row["blocks"], strict=True):
            one = speech.spoken[number]
            assert text == [TEXT, *(FIRST_SYMBOL + symbol for symbol in one.symbols), SPEECH]
            assert codes == (one.codes[shift] + FIRST_CODE).tolist()


def test_of_a_rate_with_too_few_references_nothing_is_left_out() -> None:
    spoken = talk(60)
    spoken[0] = replace(spoken[0], speed=1.2)
    speech = Speech(spoken)
    assert len(speech.spoken) == 60
    rates = [{speech.spoken[n].speed for n in row["utterances"]} for row in speech.rows(0)]
    assert any(len(rate) > 1 for rate in rates), "speaker0 is read at any rate"
    assert set(readers(spoken)) == {"speaker0", ("speaker1", 0.92), ("speaker1", 1.1)}


def test_who_cannot_have_a_reference_is_left_out() -> None:
    short = Spoken([1], np.arange(20)[None], "a", np.zeros(0, np.int16))
    long = Spoken([1], np.arange(80)[None], "a", np.zeros(0, np.int16))
    other = Spoken([1], np.arange(80)[None], "b", np.zeros(0, np.int16))
    endless = Spoken([1], np.arange(600)[None], "a", np.zeros(0, np.int16))
    assert [one.speaker for one in Speech([short, long, long, other, endless]).spoken] == ["a"] * 3
    assert all(len(row["blocks"]) == 1 for row in Speech([short, long, long]).rows(0))  # too few for streams
    with pytest.raises(ValueError, match="no speaker with two utterances of 75 codes"):
        Speech([short, long, other])
    with pytest.raises(ValueError, match="no speaker with two utterances of 75 codes"):
        Speech([long, endless])  # what does not fit is no reference


def test_the_teachers_batch() -> None:
    speech = Speech(talk(40))
    row = next(row for row in speech.rows(0) if len(row["blocks"]) > 2)
    batch = train_teacher.batch_of(speech, [row], max_gap=0)
    ids, labels, attended = batch.input_ids[0], batch.labels[0], batch.attended[0]
    start = PINNED
    for number in row["utterances"]:
        one = speech.spoken[number]
        first = start + 2 + len(one.symbols)  # of its codes
        assert ids[first - 1] == SPEECH
        # What a position predicts is what the next position holds, and END where the next text follows.
        assert torch.equal(labels[first - 1 : first - 1 + one.length], torch.from_numpy(one.codes[0]) + FIRST_CODE)
        assert labels[first - 1 + one.length] == END
        looked = ids[attended[first - 1 : first - 1 + one.length]] - FIRST_SYMBOL
        assert torch.equal(looked, torch.tensor(one.symbols)[torch.from_numpy(one.positions.astype(np.int64))])
        assert ids[attended[first - 1 + one.length]] == FIRST_SYMBOL + one.symbols[-1]
        start = first + one.length
    assert ids[start] == END
    assert int((labels >= 0).sum()) == int((attended >= 0).sum()) == sum(len(c) + 1 for _, c in row["blocks"])


def test_a_tenth_of_the_generated_codes_is_hidden_in_the_input_alone() -> None:
    speech = Speech(talk(40))
    rows = speech.rows(0)
    seen, partly = (train_teacher.batch_of(speech, rows, 0, hidden=share, seed=7) for share in (0.0, 0.1))
    hidden = partly.input_ids != seen.input_ids
    assert (partly.input_ids[hidden] == train_teacher.HIDDEN_CODE).all()
    assert torch.equal(partly.labels, seen.labels)
    assert not hidden[:, :PINNED].any(), "the reference stays"
    assert (seen.input_ids[hidden] >= FIRST_CODE).all(), "texts and END stay"
    assert 0.08 < hidden.sum() / (seen.input_ids[:, PINNED:] >= FIRST_CODE).sum() < 0.12
    assert not (seen.input_ids == train_teacher.HIDDEN_CODE).any()
    assert (train_teacher.batch_of(speech, rows, 0, hidden=0.1, seed=8).input_ids != partly.input_ids).any()


def test_a_gap_is_no_border_between_two_rows() -> None:
    """transformers would take a jump in the positions for two packed rows; the teacher must see its reference."""
    torch.manual_seed(0)
    speech = Speech(talk(40))
    rows = speech.rows(0)[:8]
    batch = train_teacher.batch_of(speech, rows, MAX_GAP)
    jumps = batch.position_ids[:, PINNED] - PINNED
    assert (jumps > 0).any()
    assert (jumps == 0).any()
    chosen = int(jumps.argmax())
    config = train_teacher.build_config()
    config.num_hidden_layers, config.vocab_size = 1, 4504
    model = train_teacher.Qwen2ForCausalLM(config).eval()
    ids = batch.input_ids[[chosen]]
    other = ids.clone()
    other[0, 10] = FIRST_CODE + 4000  # in the reference
    inputs = {"position_ids": batch.position_ids[[chosen]], "attention_mask": torch.ones_like(ids), "use_cache": False}
    with torch.no_grad():
        one, two = (model.model(input_ids=x, **inputs).last_hidden_state for x in (ids, other))
    assert (one[0, PINNED + 5] - two[0, PINNED + 5]).abs().max() > 1e-6


def test_batches_can_be_asked_for_in_any_order_and_end() -> None:
    speech = Speech(talk(80))
    passes = Passes(speech, budget=1500)
    order = [passes[number] for number in range(len(passes))]
    read = Counter(number for batch in order for row in batch for number in row["utterances"])
    assert set(read) == set(range(80))
    assert max(read.values()) == PASSES
    assert all(max(map(row_length, batch)) * len(batch) <= 1500 for batch in order)
    assert Passes(speech, budget=1500)[len(passes) - 1] == order[-1]
    assert passes[0] == order[0]
    with pytest.raises(IndexError, match=f"there are {len(passes)} batches"):
        passes[len(passes)]


def test_the_length_of_a_row_is_that_of_its_tokens() -> None:
    rows = Speech(talk(20)).rows(0)
    assert int(collator(0)(rows[:1])["attention_mask"].sum()) == row_length(rows[0])


def test_batches_are_of_like_length_and_come_in_any_order() -> None:
    rows = Speech(talk(800)).rows(0)
    size = 4
    ordered = in_batches(rows, size, seed=0, pool=20)
    assert sorted(map(id, ordered)) == sorted(map(id, rows))
    whole = [ordered[start : start + size] for start in range(0, len(rows) - size + 1, size)]
    padded = sum(max(map(row_length, batch)) * size for batch in whole)
    assert padded < 1.15 * sum(row_length(row) for batch in whole for row in batch)
    longest = [max(map(row_length, batch)) for batch in whole[:20]]  # of one pool
    falls = sum(one > two for one, two in pairwise(longest))
    assert 5 <= falls <= 14, "long and short batches are mixed"
    assert in_batches(rows, size, seed=0, pool=20) == ordered != in_batches(rows, size, seed=1, pool=20)
