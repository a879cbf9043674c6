"""A recognizer that writes letter by letter, with no language model that could repair what was said badly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wandlib.evaluation.audio import at_rate

RECEPTIVE_FIELD = 400
"""Samples behind the first frame of wav2vec 2.0; of less it has none."""


class Wav2Vec2:
    """A wav2vec 2.0 or HuBERT recognizer of torchaudio's pipelines (Baevski et al., arXiv 2006.11477), greedy CTC.

    Parameters
    ----------
    bundle
        The name of an ASR bundle in ``torchaudio.pipelines``, or a ``Wav2Vec2ASRBundle``.
    folder
        Where the bundle's weight file is, or is to be put; None: the cache of torch.hub.
    device
        Where it runs.

    Raises
    ------
    ValueError
        For a name that is no ASR bundle.
    OSError
        Where the weights are not in the folder and cannot be fetched.
    """

    def __init__(
        self,
        bundle: Any = "WAV2VEC2_ASR_BASE_960H",
        *,
        folder: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        from torchaudio import pipelines

        self.name = bundle if isinstance(bundle, str) else ""
        if isinstance(bundle, str):
            names = [name for name in dir(pipelines) if "ASR" in name and name.isupper()]
            if bundle not in names:
                raise ValueError(
                    f"no ASR bundle named {bundle!r} in torchaudio.pipelines: there are {', '.join(names)}"
                )
            bundle = getattr(pipelines, bundle)
        place = {} if folder is None else {"model_dir": str(folder)}
        self._model = bundle.get_model(dl_kwargs={"weights_only": True, **place}).to(device)
        self._labels, self._rate, self._device = bundle.get_labels(), int(bundle.sample_rate), device

    @torch.inference_mode()
    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> str:
        sound = at_rate(waveform, sample_rate, self._rate)
        if len(sound) < RECEPTIVE_FIELD:
            return ""
        scores, _ = self._model(torch.from_numpy(sound)[None].to(self._device))
        return ctc_text(scores[0].argmax(-1).tolist(), self._labels)


def ctc_text(frames: list[int], labels: tuple[str, ...]) -> str:
    """Return what the best labels spell: repeats are one letter, label 0 is the blank, "|" ends a word."""
    changes = [label for index, label in enumerate(frames) if index == 0 or label != frames[index - 1]]
    return " ".join("".join(labels[label] for label in changes if label != 0).replace("|", " ").split())
