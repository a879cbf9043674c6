"""Streams: a batch by hand, rows out of utterances, and distillation against a slow path under a dense mask."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import VOCABULARY
from tiny_training import arguments, build_teacher, losses
from torch import Tensor
from torch.nn import functional as F

from wandlib.attention.conversion import convert, set_window
from wandlib.distillation.divergences import skew_kl
from wandlib.distillation.streams import StreamCollator, streams_of
from wandlib.distillation.trainer import WandTrainer

END = 96
PINNED, BLOCKS, WINDOW = 3, 2, 4


def spoken(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Utterances of two speakers, told by their codes: those of one are even, those of the other odd."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> Tensor:
        return torch.randint(5, 40, (int(torch.randint(low, high, (1,), generator=generator)),), generator=generator)

    return [
        {"speaker": n % 2, "text": (tokens(2, 5) + 45).tolist(), "codes": (tokens(4, 9) // 2 * 2 + n % 2).tolist()}
        for n in range(count)
    ]


def rows(count: int = 12, **options: Any) -> list[dict[str, Any]]:
    return streams_of(spoken(count), **({"begin": [1], "reference": 2, "max_length": 40, "stop": 0.0} | options))


def test_a_batch_by_hand() -> None:
    long = {"pinned": [1, 2], "blocks": [([50, 51], [10, 11, 12]), ([52, 53], [13])]}
    short = {"pinned": [1, 3], "blocks": [([54], [14, 15])]}
    batch = StreamCollator(END, pad_token_id=7)([long, short])
    none = -100
    assert batch["input_ids"].tolist() == [
        [1, 2, 50, 51, 10, 11, 12, 52, 53, 13, END],
        [1, 3, 54, 14, 15, END] + [7] * 5,
    ]
    # Shifted: 12 at index 6 predicts END, the label of 52, the next text; 13 predicts the last END.
    assert batch["labels"].tolist() == [
        [none, none, none, none, 10, 11, 12, END, none, 13, END],
        [none, none, none, 14, 15, END, *[none] * 5],
    ]
    assert batch["conditioning"].int().tolist() == [[1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0] + [0] * 5]
    assert batch["block"].tolist() == [[0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2], [0, 0, 1, 1, 1, 1] + [0] * 5]
    assert batch["attention_mask"].tolist() == [[1] * 11, [1] * 6 + [0] * 5]
    assert batch["position_ids"].tolist() == [list(range(11)), list(range(6)) + [0] * 5]


def test_gaps_come_after_the_pinned_part_and_are_log_uniform() -> None:
    collate, streams = StreamCollator(END, max_gap=10_000, seed=3), rows(400)
    batch = collate(streams[:6])
    steps = batch["position_ids"].diff(dim=1)
    real = batch["attention_mask"][:, 1:].bool()
    gaps = [
        collate.gap(ids[mask].tolist())
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True)
    ]
    assert (steps[:, PINNED - 1] - 1).tolist() == gaps
    steps[:, PINNED - 1] = 1
    assert bool((steps[real] == 1).all())
    assert torch.equal(collate(streams[:6])["position_ids"], batch["position_ids"])
    drawn = [collate.gap([n]) for n in range(3000)]
    assert drawn.count(0) / 3000 == pytest.approx(2 / 3, abs=0.03)
    logs = sorted(math.log(gap) for gap in drawn if gap)
    assert max(drawn) <= 10_000
    for share in (0.25, 0.5, 0.75):
        assert logs[int(share * len(logs))] == pytest.approx(share * math.log(10_000), abs=0.6)
    assert drawn != [StreamCollator(END, max_gap=10_000, seed=4).gap([n]) for n in range(3000)]
    assert StreamCollator(END).gap([1]) == 0


@pytest.mark.parametrize("stop", [0.0, 0.5, 1.0])
def test_every_utterance_is_in_one_row_of_its_speaker(stop: float) -> None:
    said = spoken(40)
    streams = rows(40, stop=stop)
    blocks = [block for stream in streams for block in stream["blocks"]]
    assert sorted(blocks) == sorted((one["text"], one["codes"]) for one in said)
    for stream in streams:
        assert len({codes[0] % 2 for _, codes in stream["blocks"]}) == 1
        assert len(stream["pinned"]) == PINNED
        assert stream["pinned"][1] % 2 == stream["blocks"][0][1][0] % 2
        assert PINNED + 1 + sum(len(text) + len(codes) for text, codes in stream["blocks"]) <= 40
    lengths = [len(stream["blocks"]) for stream in streams]
    assert (max(lengths) == 1) == (stop == 1.0)
    assert rows(40, stop=stop) == streams
    assert rows(40, stop=stop, seed=1) != streams


def test_a_stream_without_a_reference_needs_no_other_utterance() -> None:
    (stream,) = streams_of([{"text": [1], "codes": [2, 3], "speaker": "a"}], begin=[9], reference=0)
    assert (stream["pinned"], stream["blocks"]) == ([9], [([1], [2, 3])])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rows(max_length=12), "fit a row of max_length=12"),
        (lambda: rows(reference=9, max_length=60), "no other utterance of 9 codes"),
        (lambda: rows(reference=-1), "reference, in codes, .*at least 0; got -1"),
        (lambda: rows(stop=1.5), "stop is the probability"),
        (lambda: StreamCollator(END, max_gap=-1), "at least 0; got -1"),
        (lambda: StreamCollator(END, no_gap=1.1), "from 0 to 1; got 1.1"),
        (lambda: StreamCollator(END, max_length=9)(rows()), "and max_length is 9"),
        (lambda: StreamCollator(END)([{"pinned": [1], "blocks": []}]), "needs pinned, and blocks"),
        (lambda: StreamCollator(END)([{"pinned": [1], "blocks": [([2], [])]}]), "1 text tokens and 0 codes"),
    ],
)
def test_what_makes_no_stream_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def naive_mask(batch: dict[str, Tensor], window: int, blocks: int) -> Tensor:
    """The dense mask [batch, 1, time, time], token by token; padding sees itself."""
    size, time = batch["input_ids"].shape
    seen = torch.eye(time, dtype=torch.bool).repeat(size, 1, 1)
    for row in range(size):
        kinds, block = batch["conditioning"][row].tolist(), batch["block"][row].tolist()
        for query in range(int(batch["attention_mask"][row].sum())):
            for key in range(query + 1):
                if kinds[key]:
                    seen[row, query, key] = block[key] == 0 or block[query] - block[key] < blocks
                else:
                    seen[row, query, key] = kinds[key + 1 : query + 1].count(False) < window
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]


def build(folder: Path, teacher: Any, collator: StreamCollator, **options: Any) -> WandTrainer:
    settings = options.pop("settings", {"blocks": BLOCKS, "pinned": PINNED})
    return WandTrainer(
        model=convert(copy.deepcopy(teacher), WINDOW, **settings),
        teacher=teacher,
        args=arguments(folder, **options),
        train_dataset=rows(40),
        data_collator=collator,
    )


def test_the_loss_is_that_of_the_dense_mask(tmp_path: Path) -> None:
    """Student: the rule. Teacher: every token before, whatever gap lies between."""
    teacher, collator = build_teacher(max_position_embeddings=4096), StreamCollator(END, max_gap=2000, no_gap=0.3)
    trainer = build(tmp_path, teacher, collator)
    batch = collator(rows(12)[:4])
    assert int(batch["position_ids"].max()) > 60, "some row has a gap"
    assert int(batch["block"].max()) > BLOCKS, "some block expires"
    set_window(trainer.student, window=WINDOW)
    loss = trainer.compute_loss(trainer.student, batch)
    given = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False}
    with torch.no_grad():
        predicted = teacher(**given, attention_mask=naive_mask(batch, WINDOW, BLOCKS)).logits[:, :-1]
        taught = teacher(**given, attention_mask=naive_mask(batch, 10_000, 10_000)).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    ce = F.cross_entropy(predicted.flatten(0, 1), targets.flatten(), ignore_index=-100)
    divergence = skew_kl(taught, predicted, mask=targets != -100)
    assert float(divergence) > 0.01
    torch.testing.assert_close(loss.detach(), ce + divergence, rtol=1e-4, atol=1e-5)
    assert predicted.shape[-1] == VOCABULARY


def test_two_steps_of_training(tmp_path: Path) -> None:
    options = {"max_steps": 2, "window_start": 8, "logging_steps": 1}
    trainer = build(tmp_path, build_teacher(), StreamCollator(END, max_gap=100), **options)
    before = trainer.student.model.layers[0].self_attn.q_proj.weight.clone()
    trainer.train()
    assert len(losses(trainer)) == 2
    assert not torch.equal(trainer.student.model.layers[0].self_attn.q_proj.weight, before)
    assert trainer.student.config.wand["blocks"] == BLOCKS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "has text blocks, and the student was converted without"),
        ({"blocks": 2, "pinned": 4}, rf"pin \[{PINNED}\] tokens, and the student was converted with pinned=4"),
    ],
)
def test_a_student_of_another_rule_is_refused(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    trainer = build(tmp_path, build_teacher(), StreamCollator(END), max_steps=1, settings=settings)
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_a_stream_names_its_utterances() -> None:
    utterances = spoken(9)
    for stream in streams_of(utterances, begin=[1], reference=2, max_length=40, stop=0.3):
        named = [utterances[number] for number in stream["utterances"]]
        assert stream["blocks"] == [(list(one["text"]), list(one["codes"])) for one in named]
