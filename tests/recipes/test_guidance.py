"""What the text says, strengthened and taught to the teacher itself."""

import copy
import math

import pytest
import torch
from tiny_rows import talk
from transformers import Qwen2Config, Qwen2ForCausalLM

from recipes.mini import guidance, train_teacher
from recipes.mini.rows import PASSES, PINNED, Passes, Speech
from wandlib.systems.mini.codec import CODES
from wandlib.systems.mini.prompt import END, FIRST_CODE, SPEECH, TEXT, VOCABULARY


@pytest.fixture
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1}
    made = Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, **shape, num_hidden_layers=2, tie_word_embeddings=True))
    torch.nn.init.normal_(made.get_input_embeddings().weight, std=0.5)  # so that some codes are much more probable
    return made


def test_guided_scores_are_those_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    full, bare = (3 * torch.randn(4, VOCABULARY, generator=generator) for _ in range(2))
    made = guidance.guided(full, bare).double().exp()
    with_text, without = full.double().softmax(-1), bare.double().softmax(-1)
    for row in range(4):
        chosen = range(FIRST_CODE, FIRST_CODE + CODES)
        best = max(float(with_text[row, code]) for code in chosen)
        said = {code: p for code in chosen if (p := float(with_text[row, code])) >= guidance.PLAUSIBLE * best}
        strong = {code: p * (p / float(without[row, code])) ** guidance.WEIGHT for code, p in said.items()}
        all_codes = float(with_text[row, FIRST_CODE : FIRST_CODE + CODES].sum())
        for code in chosen:
            expected = strong.get(code, 0.0) / sum(strong.values()) * all_codes
            assert float(made[row, code]) == pytest.approx(expected, rel=1e-3, abs=1e-9)
    assert torch.allclose(made.sum(-1), torch.ones(4, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(made[:, END], with_text[:, END], atol=1e-6), "when to end is not guided"


def test_without_words_codes_and_the_way_to_the_reference_are_the_same() -> None:
    speech = Speech(talk(200))
    rows = speech.rows(0)[:40]
    full = train_teacher.batch_of(speech, rows)
    bare = guidance.without_words(speech, rows, full)
    gaps = full.position_ids[:, PINNED] - PINNED
    assert 5 < int((gaps > 0).sum()) < 25
    for gap, row, places in zip(gaps.tolist(), rows, bare.position_ids, strict=True):
        length = PINNED + sum(2 + len(codes) for _, codes in row["blocks"]) + 1
        assert places[:length].tolist() == [*range(PINNED), *range(PINNED + gap, length + gap)]
    assert torch.equal(full.labels[full.labels >= 0], bare.labels[bare.labels >= 0])
    assert (bare.attended == -1).all(), "there is no phone to look at"
    for row, ids in zip(rows, bare.input_ids, strict=True):
        text = [place for place, token in enumerate(ids.tolist()) if token == TEXT]
        assert len(text) == len(row["blocks"])
        assert all(ids[place + 1] == SPEECH for place in text)


def test_a_share_of_the_rows_is_wordless() -> None:
    speech = Speech(talk(200))
    rows = [row for row in speech.rows(0) if len(row["blocks"]) == 1]
    some = train_teacher.batch_of(speech, rows, 0, without_words=0.3, seed=1)
    bare = (some.attended == -1).all(1)
    assert 0.15 < float(bare.float().mean()) < 0.45
    again = train_teacher.batch_of(speech, rows, 0, without_words=0.3, seed=1)
    assert torch.equal(some.input_ids, again.input_ids)


def test_the_teacher_learns_to_speak_as_it_is_guided(model: Qwen2ForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = Speech(talk(40))
    teacher, rows = copy.deepcopy(model).requires_grad_(False), speech.rows(0)[:4]
    with monkeypatch.context() as unguided:
        unguided.setattr(guidance, "WEIGHT", 0.0)
        unguided.setattr(guidance, "PLAUSIBLE", 1e-9)
        assert float(guidance.divergence(model, teacher, speech, rows).detach()) == pytest.approx(0, abs=1e-4)
    optimizers = train_teacher.optimizers_for(model)
    history = []
    for _ in range(12):
        loss = guidance.divergence(model, teacher, speech, rows)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        history.append(loss.item())
    assert math.isfinite(history[0])
    assert history[-1] < 0.9 * history[0]


def test_its_rows_are_none_that_the_teacher_has_read() -> None:
    speech = Speech(talk(60))
    read, new = Passes(speech, 700), Passes(speech, 700, passes=1, first=PASSES)
    before, after = ([row for number in range(len(some)) for row in some[number]] for some in (read, new))
    streams = [row for row in after if len(row["blocks"]) > 1]
    assert len(streams) > 3
    assert not any(row in before for row in streams)
