"""The ablation: rows that differ in one thing, intervals over sentences and seeds, the document, what is kept."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_rows import talk
from transformers import Qwen2Config, Qwen2ForCausalLM

from recipes.mini import ablation, shipped, spoken, train_student
from recipes.mini.ablation_rows import (
    CURRICULUM,
    DIRECT,
    ROWS,
    SEEDS,
    SHORT,
    STUDENT,
    TABLES,
    TEACHER,
    UNTRAINED,
    WITH_STREAM,
)
from recipes.mini.ablation_tables import crossed, document, lines, untrained_row, written_for
from recipes.mini.files import unpack
from recipes.mini.rows import Speech
from wandlib.evaluation.error_rates import ErrorCounts
from wandlib.evaluation.report import Report, Utterance, put_measured
from wandlib.profiling.measure import processor
from wandlib.systems.mini.prompt import VOCABULARY
from wandlib.systems.mini.system import MiniSystem


def changed(one: Any, other: Any) -> list[str]:
    return [field.name for field in fields(one) if getattr(one, field.name) != getattr(other, field.name)]


def test_rows_differ_in_one_thing_each() -> None:
    assert ROWS["CE, direct"].variant == replace(DIRECT, kl_weight=0.0)
    assert changed(DIRECT, SHORT) == ["schedule"]
    for name, row in ROWS.items():
        if row.variant is None or row.shipped or name == CURRICULUM:
            continue
        base = SHORT if name.startswith(CURRICULUM) else DIRECT
        if base is DIRECT and row.variant == DIRECT:
            continue
        assert len(changed(row.variant, base)) == (2 if row.variant.lora else 1), name
    slugs = [ablation.slug_of(name) for name in ROWS]
    assert len(set(slugs)) == len(slugs)


def test_every_row_is_in_a_table_and_every_table_has_rows() -> None:
    placed = {name for _, names, _ in TABLES for name in names}
    assert placed == set(ROWS)
    assert {CURRICULUM, f"{CURRICULUM}, no gap"} < WITH_STREAM
    assert all(ROWS[name].spoken for name in WITH_STREAM)
    assert {untrained_row(name) for name in ROWS} - set(ROWS) == {None}
    assert untrained_row(f"{CURRICULUM}, W = 8") == "window only, W = 8"
    assert untrained_row("CE, no window") is untrained_row(TEACHER) is untrained_row("unknown row") is None


def test_what_was_measured_otherwise_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's name changes with the row, the sentences and, where it reads one, the stream."""

    def path(name: str) -> Path:
        return ablation.paths_of((Path(), Path(), None, "sum", name, 1))[0]

    jobs = [path(name) for name in ROWS]
    assert len(set(jobs)) == len(ROWS)
    monkeypatch.setattr(ablation, "STREAMED", 14)
    assert [path(name) == before for name, before in zip(ROWS, jobs, strict=True)] == [
        name not in WITH_STREAM for name in ROWS
    ]
    before = path("CE, direct")
    monkeypatch.setattr(ablation, "SENTENCES", ["Another one."])
    assert path("CE, direct") != before
    before = path("CE, direct")
    monkeypatch.setitem(ROWS, "CE, direct", replace(ROWS["CE, direct"], variant=replace(DIRECT, kl_weight=0.1)))
    assert path("CE, direct") != before


def test_seeds_are_of_training() -> None:
    jobs = list(ablation.jobs_of(Path(), Path(), None, "sum", [TEACHER, STUDENT, "CE, direct"]))
    assert [(name, seed) for *_, name, seed in jobs] == [
        (TEACHER, 0),
        (STUDENT, 0),
        ("CE, direct", 0),
        ("CE, direct", 1),
        ("CE, direct", 2),
    ]
    assert ablation.variant_of("CE, direct", 2).seed == 2
    assert ablation.variant_of(STUDENT, 0) == ROWS[STUDENT].variant
    assert len(SEEDS) == 3


def test_rows_are_measured_on_held_out_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trained window against the teacher; the teacher against itself has no divergence."""
    speech = Speech(talk(40))
    monkeypatch.setattr(train_student, "build_model", lambda folder: tiny_teacher())
    monkeypatch.setattr(train_student, "read_speech", lambda corpus: (speech, speech))
    torch.save({"average": dict(tiny_teacher().named_parameters())}, tmp_path / "teacher.pt")
    found = {
        name: ablation.held_out(tmp_path, tmp_path, tiny_teacher(), ablation.variant_of(name, 0))
        for name in (TEACHER, UNTRAINED)
    }
    names = {f"{name}{ending}" for name in ("ce", "kl", "agreement") for ending in ("", ", streams", ", far")}
    assert set(found[TEACHER]) == set(found[UNTRAINED]) == names
    assert found[TEACHER]["kl"] == pytest.approx(0, abs=1e-6)
    assert found[TEACHER]["agreement"] == 1
    assert found[UNTRAINED]["kl"] > 1e-3


def test_a_model_that_was_measured_computes_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer measures in 16 bits where the machine has them, and wraps the model for it."""
    speech = Speech(talk(40))
    monkeypatch.setattr(train_student, "build_model", lambda folder: tiny_teacher())
    monkeypatch.setattr(train_student, "read_speech", lambda corpus: (speech, speech))
    monkeypatch.setattr(train_student, "computes_half", lambda: True)
    torch.save({"average": dict(tiny_teacher().named_parameters())}, tmp_path / "teacher.pt")
    model, tokens = tiny_teacher(), torch.arange(24)[None]
    with torch.inference_mode():
        before = model(tokens).logits
        ablation.held_out(tmp_path, tmp_path, model, ablation.variant_of(UNTRAINED, 0))
        assert torch.equal(model(tokens).logits, before)


def tiny_teacher() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=1, tie_word_embeddings=True, **sizes)
    model = Qwen2ForCausalLM(config)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.5)  # so that it matters what it looks at
    return model


def test_rows_start_from_the_voice_that_they_are_spoken_with(tmp_path: Path) -> None:
    corpus, student = tmp_path / "corpus", tmp_path / "student" / "model.safetensors"
    shipped.run(tmp_path)
    corpus.mkdir(exist_ok=True)
    np.savez(corpus / spoken.NAME, codec=spoken.fingerprint(MiniSystem.load().codec))
    ablation.check_voice(tmp_path, corpus, None)
    np.savez(corpus / spoken.NAME, codec="another")
    with pytest.raises(ValueError, match="holds another teacher, student or codec"):
        ablation.check_voice(tmp_path, corpus, None)
    np.savez(corpus / spoken.NAME, codec=spoken.fingerprint(MiniSystem.load().codec))
    weights = load_file(student)
    weights["model.norm.weight"] *= 1.01
    save_file(weights, student)
    with pytest.raises(ValueError, match="holds another teacher, student or codec"):
        ablation.check_voice(tmp_path, corpus, None)
    student.unlink()
    with pytest.raises(ValueError, match="no student in"):
        ablation.check_voice(tmp_path, corpus, None)


def test_the_interval_is_over_sentences_and_seeds() -> None:
    rng = np.random.default_rng(0)
    same = {(f"s{i}", seed): (float(i % 3), 10.0) for i in range(12) for seed in range(3)}
    whole = crossed(same)
    assert whole.value == pytest.approx(sum(i % 3 for i in range(12)) / 120)
    # Seeds that differ widen the interval, though the mean over them stays.
    shift = {0: -1.0, 1: 0.0, 2: 1.0}
    apart = {key: (value + shift[key[1]], weight) for key, (value, weight) in same.items()}
    wide = crossed(apart)
    assert wide.value == pytest.approx(whole.value)
    assert wide.high - wide.low > 1.5 * (whole.high - whole.low)
    # What both find hard cancels in a difference.
    teacher = {(f"s{i}", 0): (float(i % 3), 10.0) for i in range(12)}
    none = crossed(same, teacher)
    assert (none.value, none.low, none.high) == (0, 0, 0)
    worse = {key: (value + 1 + 0.1 * rng.random(), weight) for key, (value, weight) in same.items()}
    assert crossed(worse, teacher).low > 0.09
    with pytest.raises(ValueError, match="were not measured"):
        crossed(same, {("other", 0): (1.0, 1.0)})


def run(wrong: int, seed: int, name: str) -> dict[str, Any]:
    """What a row's measurement gives: six sentences, six of a stream."""
    rows = [
        Utterance(name, text, "clara", seed, "", ErrorCounts(wrong, 4, wrong, 20), 0.9, {}, [], 1.0, 2.0, 3, 0.1)
        for text in ("one", "two", "three", "four", "five", "six")
    ]
    stream = [
        {"sentence": f"{who} {place}", "word errors": errors, "words": 8}
        for who, errors in (("clara", wrong), ("victor", wrong + 4))
        for place in range(6)
    ]
    losses = {"ce": 3.0 + wrong, "kl": 0.1, "agreement": 0.9, "ce, streams": 3.5, "ce, far": 4.0}
    return losses | {"report": Report({"recognizer": "planted"}, rows), "sentences": stream}


def test_a_line_is_the_mean_of_its_seeds_beside_the_teacher() -> None:
    measured = {
        TEACHER: [run(0, 0, TEACHER)],
        UNTRAINED: [run(4, 0, UNTRAINED)],
        "CE, direct": [run(wrong, seed, "CE") | {"utterances": 7} for seed, wrong in enumerate((1, 2, 3))],
    }
    teacher, untrained, other = lines(measured)
    assert teacher["WER - teacher's, 95 %"] == ""
    assert other["CE"] == 5.0
    assert other["CE, range"] == "4.000 to 6.000"
    assert other["WER"] == 0.5
    assert other["WER - teacher's, 95 %"].startswith("+0.2")
    assert other["WER - untrained's, 95 %"].startswith("-0.7")
    assert not {"WER - untrained's, 95 %"} & {*teacher, *untrained}
    assert other["utterances read"] == 7
    assert other["WER, streams"] == 0.5
    assert other["WER of each"] == "0.250 / 0.750"
    assert other["failures"] == "0 of 18"
    assert other["seeds"] == 3
    assert other["WER by seed"] == "0.250 / 0.500 / 0.750"


def test_the_document_has_a_table_for_what_was_measured_and_nothing_else() -> None:
    names = ["CE, direct", "KL, direct", "unknown row"]
    measured = {TEACHER: [run(0, 0, TEACHER)]} | {name: [run(1, 0, name)] for name in names}
    del measured["KL, direct"][0]["sentences"]  # not every row reads a stream
    rows = lines(measured)
    assert ["WER, streams" in row for row in rows] == [True, True, False, True]
    result = {"sentences": "2 sentences", "recognizer": "planted", "machine": "m", "date": "d", "attention mass": []}
    result |= {"rows": rows, "beyond the paper": []}
    text = document(result)
    assert "**What each part is worth.**" in text
    assert "**Windows.**" not in text  # the teacher alone is no comparison
    assert "| unknown row | 1 |" in text.split("**Other rows.**")[1]


def test_findings_that_were_written_for_other_rows_say_so() -> None:
    result: dict[str, Any] = {
        "sentences": "2 sentences",
        "recognizer": "planted",
        "machine": "m",
        "date": "d",
        "attention mass": [],
        "rows": lines({TEACHER: [run(0, 0, TEACHER)], "CE, direct": [run(1, 0, "CE")]}),
        "beyond the paper": [],
        "findings": ["CE is worse."],
    }
    result["findings of"] = written_for(result)
    old = "were written for an earlier measurement"
    assert "CE is worse." in document(result)
    assert old not in document(result)
    result["rows"][1]["WER"] = 0.0
    assert old in document(result)


def test_the_tables_follow_from_what_was_heard(tmp_path: Path) -> None:
    """Whoever doubts a figure or an interval can make it anew, without the hours of training."""
    result = json.loads(ablation.RESULTS.read_text(encoding="utf-8"))
    jobs = list(ablation.jobs_of(tmp_path, tmp_path, None, result["voice"], list(ROWS)))
    unpack(ablation.RUNS, tmp_path / "ablation", (path for job in jobs for path in ablation.paths_of(job)))
    there = [job for job in jobs if ablation.paths_of(job)[0].exists()]
    rows = lines(ablation.by_row(there, map(ablation.measure, there)))
    stored = {row["row"]: row for row in (*result["rows"], *result["beyond the paper"])}
    assert [row["row"] for row in rows] == [name for name in ROWS if name in stored]
    for row in rows:
        assert row == {
            key: pytest.approx(value) if isinstance(value, float) else value
            for key, value in stored[row["row"]].items()
        }


def test_what_was_measured_before_keeps_its_machine_and_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, report, before = tmp_path / "a.json", tmp_path / "A.md", json.loads(ablation.RESULTS.read_text())
    results.write_text(json.dumps(before), encoding="utf-8")
    text = ablation.REPORT.read_text(encoding="utf-8")
    report.write_text(text, encoding="utf-8")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / spoken.NAME).touch()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # main sets it
    planted: dict[str, Any] = {
        "RESULTS": results,
        "REPORT": report,
        "RUNS": tmp_path / "runs.zip",
        "check_voice": lambda *_: None,
        "paths_of": lambda _: [tmp_path / "ablation" / "measured"],
        "each_alone": lambda _, jobs, *__: [{} for _ in jobs],
        "lines": lambda _: [*before["rows"], *before["beyond the paper"]],
        "attention_masses": lambda *_: before["attention mass"],
    }
    for name, value in planted.items():
        monkeypatch.setattr(ablation, name, value)
    monkeypatch.setattr(ablation, "pack", lambda *_: None)
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "measured").touch()
    ablation.main(folder=tmp_path)
    assert json.loads(results.read_text()) == before
    assert report.read_text(encoding="utf-8") == text
    (tmp_path / "ablation" / "measured").unlink()
    ablation.main(folder=tmp_path)
    made = json.loads(results.read_text())
    assert made["machine"] == f"{processor()}, {os.cpu_count()} cores"
    assert made["findings"] == before["findings"]


def test_the_report_quotes_the_results() -> None:
    text = ablation.REPORT.read_text(encoding="utf-8")
    result = json.loads(ablation.RESULTS.read_text(encoding="utf-8"))
    assert put_measured(text, document(result)) == text
