"""Speaker encoders: callables from a waveform to a unit vector, and the similarity of two vectors.

:class:`Resemblyzer` works offline; :class:`WavLMXVector` is the paper's.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from wandlib.evaluation.audio import at_rate

RATE = 16_000
"""Hz; what both were trained on."""
LEVEL = 0.03
"""Root mean square that Resemblyzer's own preprocessing gives a sound, full scale 1."""


@runtime_checkable
class SpeakerEncoder(Protocol):
    """Speech to a vector that identifies the speaker."""

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Return a unit vector, shape [dims], of a mono waveform, shape [samples]."""


class Resemblyzer:
    """The GE2E speaker encoder (Wan et al., arXiv 1710.10467) as packaged in resemblyzer, weights included."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its use of SciPy's old namespaces
            warnings.simplefilter("ignore", UserWarning)  # webrtcvad's use of pkg_resources
            from resemblyzer import VoiceEncoder

        self._encoder = VoiceEncoder("cpu", verbose=False)

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        sound = at_rate(waveform, sample_rate, RATE)
        level = float(np.sqrt((sound**2).mean()))
        return self._encoder.embed_utterance(sound * (LEVEL / max(level, 1e-6)))


class WavLMXVector:
    """WavLM with an x-vector head (Chen et al., arXiv 2110.13900; Snyder et al., 2018) as in transformers.

    Parameters
    ----------
    model
        A name on the Hugging Face hub ("microsoft/wavlm-base-plus-sv", "microsoft/wavlm-base-sv"), a folder with model
        and feature extractor, or a ready WavLMForXVector.
    extractor
        The Wav2Vec2FeatureExtractor of a ready model.
    device
        Where it runs.

    Raises
    ------
    OSError
        Where the folder lacks a file, or the hub cannot be reached and holds no copy here.
    ValueError
        For a ready model without an extractor.
    """

    SHORTEST = RATE
    """Samples: a shorter sound is repeated to this length, for the head looks at 0.35 s at once."""

    def __init__(
        self,
        model: str | Path | torch.nn.Module = "microsoft/wavlm-base-plus-sv",
        extractor: Any = None,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        from transformers import AutoFeatureExtractor, WavLMForXVector

        if isinstance(model, str | Path):
            extractor = AutoFeatureExtractor.from_pretrained(model) if extractor is None else extractor
            model = WavLMForXVector.from_pretrained(model, dtype=torch.float32)
        if extractor is None:
            raise ValueError(
                "a ready model needs its extractor: pass extractor=AutoFeatureExtractor.from_pretrained(...)"
            )
        self._model: Any = model.to(device).eval()
        self.name = Path(str(getattr(self._model.config, "name_or_path", ""))).name
        self._extractor = extractor

    @torch.inference_mode()
    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        sound = at_rate(waveform, sample_rate, RATE)
        if not len(sound):
            raise ValueError("an empty waveform has no speaker")
        sound = np.tile(sound, -(-self.SHORTEST // len(sound)))[: max(self.SHORTEST, len(sound))]
        values = self._extractor(sound, sampling_rate=RATE, return_tensors="pt").input_values
        vector = self._model(values.to(self._model.device)).embeddings[0]
        return torch.nn.functional.normalize(vector, dim=-1).cpu().numpy()


def similarity(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """Return the cosine of the angle between two speaker vectors."""
    return float(np.dot(one, two) / max(float(np.linalg.norm(one) * np.linalg.norm(two)), 1e-9))
