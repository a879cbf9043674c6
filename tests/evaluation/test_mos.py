"""MOS predictors: ready models, weights where a download puts them, and the reason where there are none."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import numpy as np
import pytest
import soxr
import tiny_instruments
import torch
from numpy.typing import NDArray
from torchaudio.models import SquimObjective as SquimModel
from torchaudio.models import SquimSubjective as SubjectiveModel
from torchaudio.models import squim_objective_model
from torchaudio.models.squim.subjective import Predictor

from wandlib.evaluation import mos
from wandlib.evaluation.mos import SquimObjective, SquimSubjective, Unavailable, Utmos, mos_predictors


@pytest.fixture
def sound() -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(0).normal(size=8000)).astype(np.float32)


def objective() -> SquimModel:
    torch.manual_seed(0)
    return squim_objective_model(8, 64, 8, 2, 8, 1, "LSTM", 71)


def subjective() -> SubjectiveModel:
    torch.manual_seed(0)
    return SubjectiveModel(tiny_instruments.wav2vec2(), torch.nn.Linear(16, 4), Predictor(8, 4))


class Loudness(torch.nn.Module):
    """Scores the mean level, in the form of UTMOS."""

    def forward(self, waves: torch.Tensor, rate: int) -> torch.Tensor:
        return waves.abs().mean(-1) * rate


def test_squim_gives_three_scores(sound: NDArray[np.float32]) -> None:
    model = objective()
    scores = SquimObjective(model)(sound, 16_000)
    with torch.inference_mode():
        expected = [float(score) for score in model.eval()(torch.from_numpy(sound)[None])]
    assert list(scores) == ["STOI", "PESQ", "SI-SDR"]
    assert list(scores.values()) == pytest.approx(expected)
    assert 0 <= scores["STOI"] <= 1  # the model's own range
    assert 1 <= scores["PESQ"] <= 4.7


def test_squim_reads_the_weights_of_torchaudio(
    tmp_path: Path, sound: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchaudio.pipelines._squim_pipeline.squim_objective_base", objective)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = tmp_path / "torchaudio" / "models" / "squim_objective_dns2020.pth"
    place.parent.mkdir(parents=True)
    weights = {name: weight + 0.01 for name, weight in objective().state_dict().items()}
    torch.save(weights, place)
    found = mos_predictors(["squim"])["squim"]
    assert isinstance(found, SquimObjective)
    model = objective()
    model.load_state_dict(weights)
    assert found(sound, 16_000) == SquimObjective(model)(sound, 16_000)


def test_squim_subjective_compares_with_the_clean_recording(sound: NDArray[np.float32]) -> None:
    model = subjective().eval()
    clean = np.sin(np.arange(12_000, dtype=np.float32))
    with torch.inference_mode():
        expected = float(model(torch.from_numpy(sound)[None], torch.from_numpy(clean)[None]))
    assert SquimSubjective(clean, 16_000, model)(sound, 16_000) == {"SQUIM MOS": pytest.approx(expected)}


def test_utmos_is_given_16_khz(sound: NDArray[np.float32]) -> None:
    score = Utmos(Loudness())
    expected = float(np.abs(soxr.resample(sound, 24_000, 16_000)).mean() * 16_000)
    assert score(sound, 24_000) == {"UTMOS": pytest.approx(expected, rel=1e-5)}


def test_utmos_is_pinned_and_reads_tensors_only(monkeypatch: pytest.MonkeyPatch, sound: NDArray[np.float32]) -> None:
    asked = []

    def load(*names: str, **options: object) -> torch.nn.Module:
        asked.append((names, options))
        return Loudness()

    def weights(*place: str, **options: object) -> dict[str, torch.Tensor]:
        asked.append((place, options))
        return {}

    monkeypatch.setattr(torch.hub, "load", load)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", weights)
    Utmos()(sound, 16_000)
    (names, options), (_, reading) = asked
    assert names == ("tarepan/SpeechMOS:v1.2.0", "utmos22_strong")
    assert options["pretrained"] is False
    assert reading["weights_only"] is True


def test_without_a_network_each_says_why(monkeypatch: pytest.MonkeyPatch, sound: NDArray[np.float32]) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load", offline)
    monkeypatch.setattr("torchaudio.utils._download_asset", offline)
    monkeypatch.setattr("torchaudio.pipelines._squim_pipeline.squim_objective_base", objective)
    monkeypatch.setattr("torchaudio.pipelines._squim_pipeline.squim_subjective_base", subjective)
    found = mos_predictors(reference=(sound, 16_000))
    assert list(found) == list(mos.PREDICTORS)
    assert isinstance(found.pop("dnsmos"), mos.Dnsmos)  # its weights come with a package
    for predictor in found.values():
        assert isinstance(predictor, Unavailable)
        assert "no route to host" in predictor.reason


def test_subjective_squim_without_a_reference() -> None:
    found = mos_predictors(["squim-subjective"])["squim-subjective"]
    assert isinstance(found, Unavailable)
    assert "pass reference=" in found.reason


def test_unknown_predictor() -> None:
    with pytest.raises(ValueError, match="no MOS predictor named 'ears': there are dnsmos, squim"):
        mos_predictors(["ears"])
