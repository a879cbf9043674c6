"""The recipe's student: every kind of it trains on streams, once, and is shipped with its window."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_rows import talk
from transformers import Qwen2Config, Qwen2ForCausalLM

from recipes.mini import train_student
from recipes.mini.rows import PASSES, PINNED, Speech
from recipes.mini.train_student import Variant
from wandlib.attention.models import base_decoder
from wandlib.systems.mini.prompt import VOCABULARY


def tiny_model() -> Qwen2ForCausalLM:
    """The teacher's class, small; the same weights each time."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=1, tie_word_embeddings=True, **sizes)
    return Qwen2ForCausalLM(config)


VARIANTS = {
    "plain": Variant(),
    "LoRA": Variant(lora=True),
    "full": Variant(full=True),
    "all blocks": Variant(blocks=train_student.UNBOUNDED, share=0.5),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_trains_once(variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished variant is read, not trained again, and has changed from the teacher."""
    monkeypatch.setattr(train_student, "build_model", lambda folder: tiny_model())
    monkeypatch.setattr(train_student, "BATCH", 2)
    monkeypatch.setattr(train_student, "read_speech", lambda corpus, share: (Speech(talk(12)), Speech(talk(12))))
    torch.save({"average": dict(tiny_model().named_parameters())}, tmp_path / "teacher.pt")
    variant = replace(variant, steps=2, learning_rate=1e-2)
    made = train_student.train(tmp_path, tmp_path, variant, "variant")
    assert any(not torch.equal(one, two) for one, two in zip(made.parameters(), tiny_model().parameters(), strict=True))
    assert not hasattr(base_decoder(made), "wand")
    stamp = (tmp_path / "variant" / "model.safetensors").stat().st_mtime_ns
    again = train_student.train(tmp_path, tmp_path, variant, "variant")
    assert (tmp_path / "variant" / "model.safetensors").stat().st_mtime_ns == stamp
    assert all(torch.equal(one, two) for one, two in zip(made.parameters(), again.parameters(), strict=True))


def test_nothing_is_read_more_often_than_it_has_shifts_unless_speech_is_to_be_scarce() -> None:
    speech = Speech(talk(40))
    rows, steps = train_student.training_rows(speech, Variant(steps=1000), world=2)
    read = [number for row in rows for number in row["utterances"]]
    assert max(map(read.count, read)) == PASSES == 4
    assert steps == len(rows) // (2 * train_student.BATCH)
    few, steps = train_student.training_rows(speech, Variant(steps=10, share=0.25), world=1)
    assert steps == 10
    assert len(few) >= 10 * train_student.BATCH


def test_the_utterances_that_a_variant_reads_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a little speech; of much, no more than the steps have rows of single utterances for."""
    speech = Speech(talk(40))
    monkeypatch.setattr(train_student, "read_speech", lambda corpus, share: (speech, speech))
    assert train_student.utterances_read(Path(), Variant(steps=1000)) == len(speech.spoken)
    monkeypatch.setattr(train_student, "BATCH", 4)
    first = train_student.training_rows(speech, Variant(steps=2), world=1)[0][:8]
    expected = len({number for row in first for number in row["utterances"]})
    assert train_student.utterances_read(Path(), Variant(steps=2)) == expected < len(speech.spoken)


def test_the_student_reads_other_rows_than_the_teacher_did() -> None:
    speech = Speech(talk(40))
    rows, _ = train_student.training_rows(speech, Variant(steps=1000), world=2)
    read = [row for number in range(PASSES) for row in speech.rows(number) if len(row["blocks"]) > 1]
    assert all(row not in rows for row in read)


def test_what_the_window_is_converted_with() -> None:
    assert train_student.window_of(Variant()) == {"window": 16, "blocks": 2, "pinned": PINNED}
    without_end = train_student.UNBOUNDED
    assert train_student.window_of(Variant(full=True)) == {
        "window": without_end,
        "blocks": without_end,
        "pinned": PINNED,
    }
