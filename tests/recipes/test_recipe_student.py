"""The recipe's student: its samples, its training, the ablation's rows and the long decodes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from recipes.mini import ablation, long_form, train_student
from recipes.mini.train_student import Utterances, Variant
from wandlib.attention.models import base_decoder
from wandlib.evaluation.error_rates import ErrorCounts
from wandlib.evaluation.report import Report, Utterance, put_measured
from wandlib.systems.mini.prompt import END, FIRST_CODE, SPEECH, VOCABULARY
from wandlib.systems.mini.system import MiniSystem


def utterances(count: int = 6) -> Utterances:
    """Random codes by two speakers; the last utterance is too short to be a reference."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 4375, 80) for _ in range(count - 1)] + [rng.integers(0, 4375, 20)]
    return Utterances([[1, 2, 3]] * count, codes, [f"speaker{index % 2}" for index in range(count)])


def tiny_model() -> Qwen2ForCausalLM:
    """The teacher's class, small; the same weights each time."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=1, tie_word_embeddings=True, **sizes)
    return Qwen2ForCausalLM(config)


def test_a_sample_is_conditioning_then_codes() -> None:
    made = utterances()
    sample = made[4]
    ids, labels, conditioning = sample["input_ids"], sample["labels"], sample["conditioning"]
    assert ids[conditioning][-1] == SPEECH
    assert (ids[~conditioning] - FIRST_CODE)[:-1].tolist() == made.codes[4].tolist()
    assert ids[-1] == END
    assert torch.equal(labels, torch.where(conditioning, -100, ids))
    reference = ids[1:76] - FIRST_CODE
    mine = [made.codes[number] for number in (0, 2, 4)]  # of the same speaker
    assert any(
        (code == reference.numpy()).all()
        for said in mine
        for code in np.lib.stride_tricks.sliding_window_view(said, 75)
    )
    assert torch.equal(ids, made[4]["input_ids"])


def test_long_utterances_come_more_often() -> None:
    codes = [np.arange(count) for count in (80, train_student.LONG - 1, train_student.LONG, 4000)]
    made = Utterances([[1]] * 4, codes, ["a"] * 4, long_times=3)
    assert made.numbers == [0, 1, 2, 2, 2, 3, 3, 3]
    heads = {tuple(made[index]["input_ids"][:76].tolist()) for index in (2, 3, 4)}
    assert len(heads) == 3, "each time with another reference"


def test_somebody_must_have_a_reference() -> None:
    with pytest.raises(ValueError, match="75 codes"):
        Utterances([[1]], [np.arange(20)], ["a"])


@pytest.mark.parametrize("variant", [Variant(), Variant(lora=True), Variant(full=True)], ids=["plain", "lora", "full"])
def test_a_variant_trains_once(variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished variant is read, not trained again, and has changed from the teacher."""
    monkeypatch.setattr(train_student, "build_model", tiny_model)
    monkeypatch.setattr(train_student, "BATCH", 2)
    monkeypatch.setattr(train_student, "read_utterances", lambda corpus: (utterances(), utterances(3)))
    torch.save({"average": dict(tiny_model().named_parameters())}, tmp_path / "teacher.pt")
    variant = ablation.replace(variant, steps=2, learning_rate=1e-2)
    made = train_student.train(tmp_path, tmp_path, variant, "variant")
    assert any(not torch.equal(one, two) for one, two in zip(made.parameters(), tiny_model().parameters(), strict=True))
    assert not hasattr(base_decoder(made), "wand")
    stamp = (tmp_path / "variant" / "model.safetensors").stat().st_mtime_ns
    again = train_student.train(tmp_path, tmp_path, variant, "variant")
    assert (tmp_path / "variant" / "model.safetensors").stat().st_mtime_ns == stamp
    assert all(torch.equal(one, two) for one, two in zip(made.parameters(), again.parameters(), strict=True))


def test_rows_differ_in_one_thing_each() -> None:
    """Each trained row of the paper's table is the short recipe with what its name says."""
    rows = ablation.ROWS
    assert rows["CE"].variant == ablation.replace(ablation.SHORT, kl_weight=0.0, schedule="direct")
    assert rows["CE + KL, curriculum"].variant == ablation.SHORT
    slugs = [ablation.slug_of(name) for name in rows]
    assert len(set(slugs)) == len(slugs)


def report(name: str, heard: str, failures: list[str]) -> Report:
    counts = ErrorCounts(word_errors=len(heard), words=4, character_errors=2 * len(heard), characters=20)
    rows = [
        Utterance(f"{name}, window 16", text, "clara", 0, heard, counts, 0.9, {}, failures, 1.0, 2.0, 3, 0.1)
        for text in ("one", "two")
    ]
    return Report({"recogniser": "none"}, rows)


def test_a_line_compares_with_the_teacher() -> None:
    teacher, other = report("teacher", "ab", []), report("other", "abcd", ["no end"])
    made = ablation.line("other", {"ce": 3.0, "kl": 0.1, "agreement": 0.5, "report": other}, teacher)
    assert made["WER"] == 1.0
    assert made["WER - teacher's, 95 %"] == "+0.500 to +0.500"
    assert made["failures"] == 2
    assert ablation.line("teacher", {"report": teacher}, teacher)["WER - teacher's, 95 %"] == ""


def test_errors_fall_into_the_block_where_they_are_heard() -> None:
    text = "a b c d e f g h".split()
    errors, words = long_form.count_by_block(text, [["a", "b", "x", "d"], ["f", "g"]])
    assert (errors, words) == ([1, 1], [4, 3])  # c heard as x; e left out before f; h comes after the end
    assert long_form.count_by_block(text, [[], []]) == ([0, 0], [0, 0])


def test_long_decodes_of_the_shipped_voice() -> None:
    """Both ways to hold the text; the window's cache grows with streamed text alone."""
    system = MiniSystem.load()
    voice, sentences = system.voice("henry"), ["The sky is blue today.", "We like it."]
    for streamed in (False, True):
        made = long_form.decode(system, "window", voice, sentences, 4.0, streamed)
        assert len(made.codes) == len(made.milliseconds) == len(made.cache_bytes)
        assert 0 < len(made.codes) <= 100
        if not streamed:
            assert len(set(made.cache_bytes)) == 1
    assert len(set(made.cache_bytes)) == len(made.sentences)


def test_reports_quote_the_results() -> None:
    """RESULTS.md and LONG_FORM.md hold exactly what was measured."""
    for module in (ablation, long_form):
        text = module.REPORT.read_text(encoding="utf-8")
        result = json.loads(module.RESULTS.read_text(encoding="utf-8"))
        assert put_measured(text, module.document(result)) == text, module.REPORT
