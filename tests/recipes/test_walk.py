"""The whole recipe on two minutes of buzzing: from the corpus' own format to a folder that speaks, and never twice."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.mini import (
    __main__,
    align,
    cards,
    corpus,
    export,
    hearing,
    spectra,
    stages,
    train_codec,
    train_student,
    train_teacher,
    train_vocoder,
    tune,
)
from recipes.mini.kokoro import Inside
from recipes.mini.rows import PINNED
from recipes.mini.speech import Job, locked, write_shard
from wandlib.evaluation.mos import Unavailable
from wandlib.systems.mini.system import MiniSystem

UTTERANCES = 36
TEXTS = ["The sky is blue today.", "We like to walk here.", "It may rain at noon."]
NAMES = ("clara", "henry")
AFTER_SPEECH = [name for name in __main__.STAGES if name != "speech"]


def buzz(number: int, seconds: float) -> np.ndarray:
    """A tone whose loudness goes up and down as syllables do."""
    time = np.arange(round(24_000 * seconds)) / 24_000
    loud = 0.2 + 0.8 * np.abs(np.sin(2 * np.pi * 2 * time))
    return (6000 * loud * np.sign(np.sin(2 * np.pi * (110 + 40 * (number % 2)) * time))).astype(np.int16)


def endless_jobs(*of: object) -> Iterator[Job]:
    for n in itertools.count():
        yield Job(TEXTS[n % 3], NAMES[n % 2], 1.0, "prose", n, 0)


class Hums:
    """In the place of Kokoro: five seconds of the same vectors each time."""

    def before_sound(self, text: str, voice: str, speed: float) -> Inside:
        rng = np.random.default_rng(len(text))
        hidden = rng.standard_normal((400, 16)).astype(np.float32)
        return Inside(hidden, np.full(400, 120, np.float32), np.zeros(256, np.float32))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shard of speech of two speakers, and small batches and models."""
    jobs = list(itertools.islice(endless_jobs(), UTTERANCES))
    (tmp_path / "speech").mkdir()
    write_shard(tmp_path / "speech", 0, jobs, [(0, buzz(n, 3.6 + 0.1 * (n % 7))) for n in range(UTTERANCES)])
    monkeypatch.setattr(corpus, "HELD_OUT", 12)
    for module, name, value in (
        (align, "BATCH_FRAMES", 1000),
        (train_codec, "BATCH", 4),
        (train_vocoder, "BATCH", 4),
        (train_teacher, "BATCH_TOKENS", 700),
        (train_student, "BATCH", 2),
        (spectra, "BATCH", 2),
        (spectra, "PER_SHARD", UTTERANCES // 4),
        (spectra, "jobs", endless_jobs),
        (spectra, "passages", lambda *of: None),
        (spectra, "kokoro", Hums),
    ):
        monkeypatch.setattr(module, name, value)
    for module in (hearing, tune):
        monkeypatch.setattr(module, "recognizer", lambda *window: Unavailable("not here"))
    monkeypatch.setenv("WANDLIB_SPEECH", str(tmp_path / "speech"))
    return tmp_path


def walk(folder: Path) -> None:
    for name in AFTER_SPEECH:
        __main__.stage(name, folder / "run", 0.05, 0.05, 2000.0, folder / "voice", processes=1)


def test_from_speech_to_a_voice_that_is_shipped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walk(folder)
    assert "the speech is not checked" in capsys.readouterr().out
    voice = folder / "voice"
    system = MiniSystem.load(voice)
    assert system.speakers == list(NAMES)
    assert stages.voices_of(voice) == {"clara": "af_heart", "henry": "bm_george"}
    config = json.loads((voice / "student" / "config.json").read_text(encoding="utf-8"))
    assert config["wand"] == {"window": 16, "conditioning_until": None, "blocks": 2, "pinned": PINNED}
    assert "wand" not in json.loads((voice / "teacher" / "config.json").read_text(encoding="utf-8"))
    parameters = sum(value.numel() for value in system.language_model.parameters())
    assert 5e6 < parameters < 7e6
    export.check_sizes(voice)

    speech = system.synthesize("Yes.", "henry", "window")
    assert len(speech.codes) == speech.trace.parts[0]
    for name in ("codec", "teacher", "student"):
        text = (voice / name / "README.md").read_text(encoding="utf-8")
        assert "$" not in text
        assert "<!-- measured -->" in text
    assert "Kokoro-82M, weights and voices (af_heart, bm_george)" in (voice / "NOTICE").read_text(encoding="utf-8")
    assert re.fullmatch(r"codec \d+ steps in 0 minutes", cards.spent(folder / "run", "codec"))

    # A second run finds everything done: nothing is trained again.
    kept = {path: path.read_bytes() for path in (folder / "run").rglob("*.pt")}
    student = (folder / "run" / "student" / "model.safetensors").stat().st_mtime_ns
    walk(folder)
    assert {path: path.read_bytes() for path in kept}.keys() == kept.keys()
    assert (folder / "run" / "student" / "model.safetensors").stat().st_mtime_ns == student


def test_a_stage_begun_with_other_weights_is_made_anew_or_refused(tmp_path: Path) -> None:
    torch.save({"step": 900}, tmp_path / "teacher.pt")
    __main__.check_origin(tmp_path, "student")
    (tmp_path / "student").mkdir()
    __main__.check_origin(tmp_path, "student")
    torch.save({"step": 1800}, tmp_path / "teacher.pt")
    with pytest.raises(
        ValueError, match=r"student was begun with teacher of 900 steps .*, which has 1800 steps .*remove"
    ):
        __main__.check_origin(tmp_path, "student")
    # The same number of steps, but trained otherwise.
    torch.save({"step": 900, "average": {"weight": torch.ones(3)}}, tmp_path / "teacher.pt")
    with pytest.raises(
        ValueError, match=r"begun with teacher of 900 steps \(sum .*, which has 900 steps \(sum .*remove"
    ):
        __main__.check_origin(tmp_path, "student")
    (tmp_path / "student").rmdir()
    __main__.check_origin(tmp_path, "student")
    (tmp_path / "student").mkdir()
    __main__.check_origin(tmp_path, "student")


def test_what_has_learned_from_less_speech_is_refused(tmp_path: Path) -> None:
    speech = [("One.", "clara", np.ones(16_000, np.int16))]
    corpus.write_shard(tmp_path / "corpus", 0, speech)
    __main__.check_origin(tmp_path, "aligner")
    (tmp_path / "aligner.pt").touch()
    __main__.check_origin(tmp_path, "aligner")
    corpus.write_shard(tmp_path / "corpus", 1, speech)
    with pytest.raises(
        ValueError, match=r"aligner\.pt was begun with corpus of 1 utterances, which has 2 utterances now: remove"
    ):
        __main__.check_origin(tmp_path, "aligner")


def test_one_run_at_a_time(folder: Path) -> None:
    with locked(folder / "run"), pytest.raises(RuntimeError, match="another run is writing to"):
        __main__.main(["corpus"], folder / "run", folder / "voice")


def test_a_stage_that_is_not_there_is_named() -> None:
    from typer import BadParameter

    with pytest.raises(BadParameter, match="no stage flite; there are speech, hearing"):
        __main__.main(["flite"])
