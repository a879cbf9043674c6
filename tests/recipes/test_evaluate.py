"""The evaluation of a voice folder: stages, what is kept on disk, the tables, and what is not installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer import BadParameter

from recipes.mini import evaluate, listening, sentences, stages, tables
from recipes.mini.stages import FromSource, Stage
from wandlib.evaluation.error_rates import ErrorCounts
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.report import Report, Utterance, put_measured
from wandlib.systems.mini.system import MiniSystem


@pytest.fixture(scope="module")
def system() -> MiniSystem:
    return MiniSystem.load()


def row(stage: str, text: str, speaker: str, wrong: int, similarity: float = 0.9, margin: float = 0.1) -> Utterance:
    counts = ErrorCounts(wrong, 10, wrong, 50)
    scores = {"DNSMOS": 3.0 + 0.1 * wrong, "margin": margin}
    failed = ["runaway"] if wrong > 4 else []
    return Utterance(stage, text, speaker, 0, text, counts, similarity, scores, failed, 1.0, 2.0, 3, 0.1)  # type: ignore[arg-type]


def planted() -> Report:
    """Two speakers and six sentences; the student makes an error more than the teacher in one of them."""
    rows = []
    for number, text in zip((0, 1, 2, 1, 1, 1), ("one", "two", "three", "four", "five", "six"), strict=True):
        for speaker in ("a", "b"):
            rows.append(row("source", text, speaker, 0))
            rows.append(row("teacher", text, speaker, number, margin=0.1 if speaker == "a" else -0.02))
            rows.append(row("student, W = 16", text, speaker, number + (number == 0)))
            rows.append(row("untrained, W = 16", text, speaker, 8))
    return Report({"recognizer": "planted"}, rows, {})


def test_tables_of_planted_rows() -> None:
    made = tables.summarize(planted())
    by_stage = {line["stage"]: line for line in made["stages"]}
    assert by_stage["source"]["WER"].startswith("0.000")
    assert by_stage["teacher"]["WER"].startswith("0.100 (0.")
    assert by_stage["teacher"]["margin, worst"] == pytest.approx(-0.02)
    assert by_stage["untrained, W = 16"]["failures"] == 12
    differences = {line["difference"]: line for line in made["differences"]}
    assert differences["student, W = 16 - teacher"]["WER"].startswith("+0.017 (+0.000 to +0.0")
    assert differences["untrained, W = 16 - teacher"]["WER"].startswith("+0.700 (+0.6")
    assert [line["speaker"] for line in made["speakers"]] == ["a", "b"]


def test_what_was_not_measured_is_empty_and_said() -> None:
    report = planted()
    rows = [Utterance(**{**vars(one), "errors": None, "scores": {}, "similarity": None}) for one in report.utterances]
    made = tables.summarize(Report({"recognizer": "none"}, rows, {"WER and CER": "no recognizer here"}))
    assert made["stages"][0]["WER"] == ""
    rest = {"sentences": 3, "odd texts": 0, "failures": [], "people": [], "speed": {}}
    text = tables.document(made | rest)
    assert "Not measured: WER and CER (no recognizer here)." in text
    assert "| teacher |  |  |  |  |" in text


def test_people_are_imitated_or_it_is_said_that_they_are_not() -> None:
    near = {"teacher": 0.8, "teacher, closest speaker": 0.7, "student": 0.8, "student, closest speaker": 0.7}
    far = near | {"student": 0.6}
    assert tables.people([near] * 10 + [far] * 2)[0].startswith("It imitates people.")
    assert tables.people([near] * 9 + [far] * 3)[0].startswith("It does not imitate people.")
    assert "student: 9 of 12" in " ".join(tables.people([near] * 9 + [far] * 3))


def test_a_folder_that_does_not_tell_its_source_has_no_source_stages(tmp_path: Path) -> None:
    assert [stage.name for stage in stages.stages_of(None)][:3] != ["source", "mel", "codec"] or stages.voices_of(None)
    (tmp_path / "codec").mkdir()
    (tmp_path / "codec" / "config.json").write_text('{"kokoro": {"clara": "af_heart"}}', encoding="utf-8")
    assert stages.voices_of(tmp_path) == {"clara": "af_heart"}


def test_the_source_goes_through_codec_and_vocoder(system: MiniSystem) -> None:
    name = system.speakers[0]
    sound = system.reference_waveform(name)
    assert sound is not None
    made = {
        stage: FromSource(system, stage, lambda text, speaker: sound).synthesize("Any.", name).waveform
        for stage in stages.SOURCES
    }
    np.testing.assert_array_equal(made["source"], sound)
    assert len({len(wave) for wave in made.values()}) == 1
    assert not np.allclose(made["mel"], sound, atol=1e-3)
    assert not np.allclose(made["codec"], made["mel"], atol=1e-3)


@pytest.fixture
def no_ears(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither a recognizer nor DNSMOS."""
    monkeypatch.setattr(listening, "recognizer", lambda: Unavailable("not here"))
    monkeypatch.setattr(listening, "scores", lambda: {"dnsmos": Unavailable("not here")})
    listening.known_voices.cache_clear()
    yield
    listening.known_voices.cache_clear()


@pytest.fixture
def no_instruments(no_ears: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "identity", lambda: Unavailable("not here"))


@pytest.mark.usefixtures("no_instruments")
def test_a_job_is_done_once_and_goes_on_without_instruments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage("teacher", temperature=0.0)
    (job,) = evaluate.jobs_of(None, [stage], ["Yes, it is."], [], [], tmp_path)
    made = evaluate.work(job)
    assert [one.condition for one in made.utterances] == ["teacher"] * len(MiniSystem.load().speakers)
    assert all(one.errors is None and one.similarity is None for one in made.utterances)
    assert set(made.unavailable) == {"dnsmos", "WER and CER", "similarity"}

    def fails(*_: Any) -> Report:
        raise AssertionError("measured a second time")

    monkeypatch.setattr(listening, "measure", fails)
    assert evaluate.work(job).utterances == made.utterances


@pytest.mark.usefixtures("no_instruments")
def test_a_missing_source_leaves_its_stage_out_until_it_is_there(
    system: MiniSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Source:
        def speak(self, text: str, voice: str) -> np.ndarray:
            return np.sin(np.arange(24_000, dtype=np.float32) / 20)

    monkeypatch.setattr(stages, "voices_of", lambda assets: dict.fromkeys(system.speakers, "af_heart"))
    jobs = evaluate.jobs_of(None, [Stage(name) for name in stages.SOURCES], ["Yes."], [], [], tmp_path)
    monkeypatch.setattr(stages, "source", lambda: Unavailable("no Kokoro"))
    for job, name in zip(jobs, stages.SOURCES, strict=True):
        made = evaluate.work(job)
        assert made.utterances == []
        assert made.unavailable == {name: "no Kokoro"}
    monkeypatch.setattr(stages, "source", Source)
    for job, name in zip(jobs, stages.SOURCES, strict=True):
        assert [row.condition for row in evaluate.work(job).utterances] == [name] * len(system.speakers)


def test_another_voice_does_not_get_into_the_readme(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="leave out --assets"):
        evaluate.main(assets=tmp_path, write=True)


def test_speed_alone_goes_beside_that_of_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, card, before = tmp_path / "results.json", tmp_path / "README.md", json.loads(evaluate.RESULTS.read_text())
    results.write_text(json.dumps(before), encoding="utf-8")
    card.write_text(evaluate.CARDS[0].read_text(encoding="utf-8"), encoding="utf-8")
    here = {name: float(n) for n, name in enumerate(next(iter(before["speed"].values())))}
    monkeypatch.setattr(evaluate, "RESULTS", results)
    monkeypatch.setattr(evaluate, "CARDS", (card,))
    monkeypatch.setattr(evaluate, "speed", lambda _: {"Abacus, 1 core": here})
    evaluate.main(only_speed=True, write=True)
    assert json.loads(results.read_text()) == before | {"speed": before["speed"] | {"Abacus, 1 core": here}}
    assert f"| speed | {' | '.join([*before['speed'], 'Abacus, 1 core'])} |" in card.read_text(encoding="utf-8")
    with pytest.raises(BadParameter, match="another voice"):
        evaluate.main(assets=tmp_path, only_speed=True)


def test_imitation_stays_in_the_readme_where_it_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, card, before = tmp_path / "results.json", tmp_path / "README.md", json.loads(evaluate.RESULTS.read_text())
    results.write_text(json.dumps(before), encoding="utf-8")
    card.write_text(evaluate.CARDS[0].read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # main sets it
    for name, value in {"RESULTS": results, "CARDS": (card,), "speed": lambda _: {}}.items():
        monkeypatch.setattr(evaluate, name, value)
    monkeypatch.setattr(evaluate, "robustness_sentences", lambda _: [])
    monkeypatch.setattr(evaluate, "jobs_of", lambda *_: [])
    measured = ("instruments", "unavailable", "stages", "differences", "speakers")
    monkeypatch.setattr(tables, "summarize", lambda _: {name: before[name] for name in measured})
    evaluate.main(folder=tmp_path, write=True)
    assert before["people"]
    assert json.loads(results.read_text())["people"] == before["people"]
    assert "\n".join(tables.people(before["people"])) in card.read_text(encoding="utf-8")
    results.write_text(json.dumps(before | {"voice": "another"}), encoding="utf-8")
    evaluate.main(folder=tmp_path, write=True)
    assert json.loads(results.read_text())["people"] == []


def test_a_part_of_the_evaluation_does_not_get_into_the_readme() -> None:
    for part in ({"sentences": 5}, {"odd": 0}):
        with pytest.raises(BadParameter, match="--write is for a whole evaluation"):
            evaluate.main(write=True, **part)  # type: ignore[arg-type]


def test_every_recording_is_taken_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="no recording in"):
        evaluate.recordings_in(tmp_path)
    for name in ("a.WAV", "b.flac", "c.mp3", "d.ogg", "list.tsv"):
        (tmp_path / name).touch()
    assert [path.name for path in evaluate.recordings_in(tmp_path)] == ["a.WAV", "b.flac", "c.mp3", "d.ogg"]


def test_another_recording_of_the_same_name_is_another_job(tmp_path: Path) -> None:
    recording, kept = tmp_path / "a.wav", set()
    for content in (b"one", b"two", b"one"):
        recording.write_bytes(content)
        ((_, _, path),) = evaluate.jobs_of(None, [], [], [], [recording], tmp_path)
        kept.add(path)
    assert len(kept) == 2


def test_other_sentences_are_other_jobs(tmp_path: Path) -> None:
    first = evaluate.jobs_of(None, [Stage("teacher")], ["a b"], ["c"], [], tmp_path)
    second = evaluate.jobs_of(None, [Stage("teacher")], ["a c"], ["c"], [], tmp_path)
    assert first[0][2] != second[0][2]
    assert first[1][2] == second[1][2]


@pytest.mark.usefixtures("no_instruments")
def test_odd_texts_are_judged_for_teacher_and_student(system: MiniSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "failures", lambda *_, **__: ["runaway"])
    rows = listening.judge(None, [(0, "Yes."), (1, "No.")])
    assert [(line["model"], line["speaker"]) for line in rows] == [
        (model, system.speakers[number]) for number in (0, 1) for model in ("teacher", "student")
    ]


@pytest.mark.usefixtures("no_ears")
def test_the_margin_is_over_the_closest_other_speaker() -> None:
    """With the real encoder, on a built-in speaker's own reference."""
    made = listening.measure(None, Stage("teacher", temperature=0.0), ["Yes, it is."])
    _, vectors = listening.known_voices(None)
    assert len(vectors) == len({line.speaker for line in made.utterances})
    for line in made.utterances:
        assert line.similarity is not None
        assert line.scores["margin"] < line.similarity


def test_cards_quote_the_results() -> None:
    """README and model cards hold exactly what the evaluation wrote."""
    result = json.loads(evaluate.RESULTS.read_text(encoding="utf-8"))
    for card in evaluate.CARDS:
        text = card.read_text(encoding="utf-8")
        assert put_measured(text, tables.document(result)) == text, card


@pytest.mark.skipif(not sentences.WORDNET.is_dir(), reason="needs the Debian package wordnet-base")
def test_odd_sentences_cover_what_people_type() -> None:
    texts = sentences.robustness_sentences(200)
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) == 1
    assert max(lengths) == 60
    assert any(character in text for text in texts for character in "$%&")
    assert any(text.isupper() for text in texts)
    assert any("Dr." in text for text in texts)
    assert any("/1999" in text for text in texts)
    assert texts == sentences.robustness_sentences(200)
