"""What is shipped: references, sizes, cards that are filled in from the run, and the notice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recipes.mini import cards, corpus, export
from recipes.mini.speakers import SPEAKERS
from wandlib.systems.mini.system import ASSETS


def test_references_are_of_every_speaker_and_of_the_right_length(tmp_path: Path) -> None:
    rows = [(1, "zoe"), (5, "zoe"), (6, "zoe"), (7, "adam"), (30, "eve")]
    made = [corpus.Utterance("", name, tmp_path, 0, 16_000 * seconds) for seconds, name in rows]
    assert {name: said.seconds for name, said in export.references(made, {}).items()} == {"zoe": 5, "adam": 7}
    made.insert(1, corpus.Utterance("", "zoe", tmp_path, 0, 16_000 * 4, speed=1.2))  # too fast
    assert export.references(made, {})["zoe"].seconds == 5
    chosen = corpus.Utterance("The chosen one.", "zoe", tmp_path, 0, 16_000 * 7)
    wanted = {"references": {"zoe": "The chosen one."}}
    assert export.references([*made, chosen], wanted)["zoe"] is chosen
    with pytest.raises(ValueError, match="4 to 8 seconds"):
        export.references(made[-1:], {})


def test_what_is_too_large_is_not_shipped(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(24_000_000)
    with pytest.raises(ValueError, match=r"24\.0 MB and all files 72\.0: at most 25 and 60"):
        export.check_sizes(tmp_path)
    (tmp_path / "c").unlink()
    export.check_sizes(tmp_path)


def test_the_data_is_told_for_kokoro_and_for_people(tmp_path: Path) -> None:
    ours = [corpus.Utterance("", speaker.name, tmp_path, 0, 16_000 * 900) for speaker in SPEAKERS]
    facts = cards.data_facts(ours)
    assert facts["data"].startswith("2.0 hours (8 utterances) made on the spot by Kokoro-82M")
    assert "af_heart, af_river" in facts["data"]
    people = cards.data_facts([corpus.Utterance("", "84", tmp_path, 0, 16_000 * 3600)])
    assert people["data"].startswith("1.0 hours (1 utterances): recordings of 1 speakers")
    assert people["voices"] == ""


@pytest.mark.parametrize("name", ["codec", "teacher", "student"])
def test_the_shipped_cards_are_what_the_templates_make(name: str) -> None:
    """All but the lines' ends, the facts of the run and what was measured after it."""
    shipped, template = (
        " ".join(re.sub("<!-- measured -->.*<!-- end of measured -->", "", path.read_text(), flags=re.DOTALL).split())
        for path in (ASSETS / name / "README.md", cards.TEMPLATES / f"{name}.md")
    )
    prose = re.split(r"\$[a-z_]+", template)
    assert re.fullmatch(".*?".join(map(re.escape, prose)), shipped)


def test_losses_come_from_the_logs(tmp_path: Path) -> None:
    assert cards.teacher_training(tmp_path) == "The teacher was not trained in this run."
    (tmp_path / "teacher.jsonl").write_text('{"ce": 9}\n{"ce": 3.2, "validation_ce": 3.5}\n', encoding="utf-8")
    assert cards.teacher_training(tmp_path).endswith("at the end: training 3.20, held-out single utterances 3.50.")
    (tmp_path / "student").mkdir()
    log = {"global_step": 320, "log_history": [{"ce": 4.0, "kl": 0.2}, {"train_loss": 5.0}]}
    (tmp_path / "student" / "log.json").write_text(json.dumps(log), encoding="utf-8")
    assert cards.student_training(tmp_path) == "320 steps; last training losses: ce 4.00, kl 0.20."
