"""How it sounds: predictors of listeners' scores.

DNSMOS (Reddy et al., arXiv 2110.01763) is the one that works offline: the PyPI package speechmos holds its weights.
SQUIM (Kumar et al., arXiv 2304.01448) comes with torchaudio, UTMOS (Saeki et al., arXiv 2204.02152), the one of the
paper, through torch.hub. What cannot be loaded is an :class:`Unavailable` with its reason, and stands so in a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from wandlib.evaluation.audio import at_rate

RATE = 16_000
"""Hz; what all of them were trained on."""
PREDICTORS = ("dnsmos", "squim", "squim-subjective", "utmos")
"""Names that :func:`mos_predictors` knows."""
UTMOS_CODE = "tarepan/SpeechMOS:v1.2.0"
UTMOS_WEIGHTS = "https://github.com/tarepan/SpeechMOS/releases/download/v1.0.0/utmos22_strong_step7459_v1.pt"


@runtime_checkable
class MosPredictor(Protocol):
    """Speech to scores."""

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> dict[str, float]:
        """Scores by name of a mono waveform, shape [samples], full scale 1; more is better."""


@dataclass(frozen=True)
class Unavailable:
    """An instrument that could not be had, and why."""

    reason: str


class Dnsmos:
    """DNSMOS P.835 and P.808 (Microsoft): a listener's scores, 1 to 5, of speech, background and the whole.

    Raises
    ------
    ImportError
        Where speechmos is not installed.
    """

    def __init__(self) -> None:
        from speechmos import dnsmos

        self._run: Any = dnsmos.run

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> dict[str, float]:
        sound = at_rate(waveform, sample_rate, RATE)
        # Its own limits: full scale, and it repeats what is short until it lasts nine seconds.
        if not len(sound):
            return dict.fromkeys(("DNSMOS", "DNSMOS speech", "DNSMOS background", "DNSMOS P.808"), 1.0)
        scores = self._run(np.clip(sound, -1, 1), RATE)
        names = {"ovrl": "DNSMOS", "sig": "DNSMOS speech", "bak": "DNSMOS background", "p808": "DNSMOS P.808"}
        return {name: float(scores[f"{key}_mos"]) for key, name in names.items()}


class SquimObjective:
    """What STOI (0 to 1), PESQ (1 to 4.6) and SI-SDR (dB) would be beside a clean reference, predicted without one.

    Parameters
    ----------
    model
        A ``torchaudio.models.SquimObjective``; None: torchaudio's own weights, fetched once.
    """

    def __init__(self, model: torch.nn.Module | None = None) -> None:
        from torchaudio.pipelines import SQUIM_OBJECTIVE

        self._model = (SQUIM_OBJECTIVE.get_model() if model is None else model).eval()

    @torch.inference_mode()
    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> dict[str, float]:
        scores = self._model(torch.from_numpy(at_rate(waveform, sample_rate, RATE))[None])
        return {name: float(score) for name, score in zip(("STOI", "PESQ", "SI-SDR"), scores, strict=True)}


class SquimSubjective:
    """A listener's score, 1 to 5, beside any clean recording (it need not say the same).

    Parameters
    ----------
    reference, sample_rate
        The clean recording, shape [samples], and its rate in Hz.
    model
        A ``torchaudio.models.SquimSubjective``; None: torchaudio's own weights, fetched once.
    """

    def __init__(self, reference: NDArray[np.float32], sample_rate: int, model: torch.nn.Module | None = None) -> None:
        from torchaudio.pipelines import SQUIM_SUBJECTIVE

        self._reference = torch.from_numpy(at_rate(reference, sample_rate, RATE))[None]
        self._model = (SQUIM_SUBJECTIVE.get_model() if model is None else model).eval()

    @torch.inference_mode()
    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> dict[str, float]:
        sound = torch.from_numpy(at_rate(waveform, sample_rate, RATE))[None]
        return {"SQUIM MOS": float(self._model(sound, self._reference))}


class Utmos:
    """UTMOS, strong learner: a listener's score of naturalness, 1 to 5.

    Parameters
    ----------
    model
        A module from (sound [1, samples], Hz) to [1] scores; None: code and weights of the SpeechMOS repository at a
        fixed release. That runs code from the network: its release is pinned, its weights are read as tensors alone.
    """

    def __init__(self, model: torch.nn.Module | None = None) -> None:
        if model is None:
            model = torch.hub.load(UTMOS_CODE, "utmos22_strong", pretrained=False, trust_repo=True)
            model.load_state_dict(torch.hub.load_state_dict_from_url(UTMOS_WEIGHTS, "cpu", weights_only=True))
        self._model: Any = model.eval()

    @torch.inference_mode()
    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> dict[str, float]:
        return {"UTMOS": float(self._model(torch.from_numpy(at_rate(waveform, sample_rate, RATE))[None], RATE))}


def mos_predictors(
    names: Sequence[str] = PREDICTORS, reference: tuple[NDArray[np.float32], int] | None = None
) -> dict[str, MosPredictor | Unavailable]:
    """Predictors by name; without a network, or without torchaudio, each is an :class:`Unavailable` that says why.

    Parameters
    ----------
    names
        Of :data:`PREDICTORS`.
    reference
        A clean recording, shape [samples], and its rate in Hz, for "squim-subjective".

    Raises
    ------
    ValueError
        For a name that is no predictor.
    """
    found: dict[str, MosPredictor | Unavailable] = {}
    for name in names:
        try:
            if name == "dnsmos":
                found[name] = Dnsmos()
            elif name == "squim":
                found[name] = SquimObjective()
            elif name == "utmos":
                found[name] = Utmos()
            elif name == "squim-subjective":
                found[name] = (
                    Unavailable("it needs a clean recording to compare with: pass reference=(waveform, sample_rate)")
                    if reference is None
                    else SquimSubjective(*reference)
                )
            else:
                raise ValueError(f"no MOS predictor named {name!r}: there are {', '.join(PREDICTORS)}")
        except (OSError, ImportError) as error:
            found[name] = Unavailable(f"{type(error).__name__}: {error}")
    return found
