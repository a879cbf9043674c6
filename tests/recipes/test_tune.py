"""What is chosen after training: the reference by two rounds, everything kept, and nothing without a recognizer."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from recipes.mini import analysis, corpus, export, tune
from wandlib.evaluation.mos import Unavailable


def items(count: int) -> list[Any]:
    said = [corpus.Utterance(f"this is sentence number {n}", "clara", Path(), 0, 16_000 * 5) for n in range(count)]
    return [SimpleNamespace(utterance=one) for one in said]


def test_the_best_of_the_finalists_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The luckiest of the first round is not the best of the second, which is of other sentences."""
    tuning = tune.Tuning(None, None, items(tune.SENTENCES + 6))  # type: ignore[arg-type]
    assert len(tuning.chosen) == tune.SENTENCES
    candidates = [item.utterance for item in items(tune.CANDIDATES)]
    first = dict(zip([said.text for said in candidates], (0.5, 0.1, 0.2, 0.9, 0.8, 0.3), strict=True))
    second = first | {
        candidates[1].text: 0.4,
        candidates[2].text: 0.3,
        candidates[0].text: 0.0,
        candidates[5].text: 0.5,
    }
    asked: list[tuple[str, ...]] = []

    def error(said: corpus.Utterance, texts: list[str]) -> float:
        asked.append(tuple(texts))
        return (first if len(texts) == 8 else second)[said.text]

    monkeypatch.setattr(tuning, "_with", error)
    assert tuning.reference(candidates) is candidates[2]
    assert len(set(asked)) == 2
    assert not set(asked[0]) & set(asked[-1])


def test_choices_are_made_once_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is kept as soon as it is made: a run that is cut off goes on where it stopped."""
    said = items(9)
    monkeypatch.setattr(tune, "recognizer", lambda *_: object())
    monkeypatch.setattr(tune, "system_of", lambda folder, corpus: export.choices(folder).get("contrast"))
    monkeypatch.setattr(tune, "read_shards", lambda corpus: [one.utterance for one in said])
    monkeypatch.setattr(analysis, "read", lambda corpus: said)
    measured: list[tuple[str, Any]] = []

    def measure(kind: str, value: Any, answer: Any) -> Any:
        if len(measured) == stop:
            raise KeyboardInterrupt
        measured.append((kind, value))
        return answer

    errors = {1.0: 0.3, 1.25: 0.2, 1.5: 0.1}
    monkeypatch.setattr(tune.Tuning, "contrast", lambda self, value: measure("contrast", value, errors[value]))
    monkeypatch.setattr(
        tune.Tuning, "reference", lambda self, given: measure("reference", self.system, said[5].utterance)
    )
    monkeypatch.setattr(tune.Tuning, "temperature", lambda self, value: measure("temperature", value, value))
    for stop in (2, 5, 100):
        if stop < 100:
            with pytest.raises(KeyboardInterrupt):
                tune.run(tmp_path, tmp_path)
        else:
            tune.run(tmp_path, tmp_path)
    found = export.choices(tmp_path)
    assert found["contrast"] == 1.5
    assert found["references"] == {"clara": "this is sentence number 5"}
    assert found["temperatures"] == {str(value): value for value in tune.TEMPERATURES}
    assert measured == [
        *(("contrast", value) for value in tune.CONTRASTS),
        ("reference", 1.5),  # heard with the contrast that was chosen
        *(("temperature", value) for value in tune.TEMPERATURES),
    ]
    monkeypatch.setattr(tune, "recognizer", lambda: pytest.fail("a finished choice needs no recognizer"))
    tune.run(tmp_path, tmp_path)
    assert len(measured) == 8
    assert export.choices(tmp_path) == found


def test_nothing_is_chosen_without_a_recognizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune, "recognizer", lambda: Unavailable("not here"))
    tune.run(tmp_path, tmp_path)
    assert export.choices(tmp_path) == {}
    assert "contrast 1.25 and each speaker's first utterance stay: not here" in capsys.readouterr().out


def test_choices_are_json(tmp_path: Path) -> None:
    (tmp_path / "choices.json").write_text(json.dumps({"contrast": 1.0}), encoding="utf-8")
    assert export.choices(tmp_path) == {"contrast": 1.0}


def test_a_sound_that_is_understood_as_well_and_sounds_worse_is_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recognizer:
        normalize = staticmethod(str.lower)

        def __call__(self, sound: Any, rate: int) -> str:
            return "one two"

    tuning = tune.Tuning(None, Recognizer(), [])  # type: ignore[arg-type]
    monkeypatch.setattr(tune, "scores", lambda: {"dnsmos": lambda sound, rate: {"DNSMOS": float(sound.max())}})
    good, bad = (tuning.error(["One two"], [np.full(9, level)]) for level in (3.0, 2.0))
    assert bad - good == pytest.approx(tune.MOS_WEIGHT)
    monkeypatch.setattr(tune, "scores", lambda: {"dnsmos": Unavailable("not here")})
    assert tuning.error(["One two"], [np.ones(9)]) == 0
