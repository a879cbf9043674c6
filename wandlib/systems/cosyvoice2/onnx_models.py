"""The two published networks that come as ONNX files: the speech tokenizer and the speaker encoder (CAM++).

Sources: CosyVoice 2's supervised tokenizer, arXiv 2412.10117, section 2.2; CAM++, arXiv 2303.00332.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2.features import ANALYSIS_RATE, speaker_features, whisper_mel

MAXIMUM_SECONDS = 30
"""Of sound in one run of the speech tokenizer."""


def open_network(path: Path, *, threads: int = 1, cuda: bool = False) -> Any:
    """Open an ONNX file for running.

    Raises
    ------
    InputError
        If onnxruntime is not installed or cannot read the file.
    """
    if find_spec("onnxruntime") is None:
        raise InputError(
            f"{path.name} needs onnxruntime, which is not installed: pip install 'wandlib[cosyvoice]' (for the "
            "references; nothing else of CosyVoice 2 uses it)"
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    wanted = ["CUDAExecutionProvider"] if cuda and "CUDA" in " ".join(onnxruntime.get_available_providers()) else []
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[*wanted, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen classes of its own, without a common base
        raise InputError(f"onnxruntime cannot read {path.name} ({error}): download it again") from error


class SpeechTokenizer:
    """Sound to codes, 25 a second.

    Parameters
    ----------
    path
        ``speech_tokenizer_v2.onnx``.
    threads
        Of a run.
    cuda
        Use the GPU where onnxruntime can.
    """

    def __init__(self, path: Path, *, threads: int = 1, cuda: bool = False) -> None:
        self.network = open_network(path, threads=threads, cuda=cuda)
        self.mel, self.length = (given.name for given in self.network.get_inputs()[:2])

    def __call__(self, samples: NDArray[np.float32]) -> list[int]:
        """Return the codes of sound at 16 kHz.

        Raises
        ------
        InputError
            If it is longer than 30 s.
        """
        if len(samples) > MAXIMUM_SECONDS * ANALYSIS_RATE:
            raise InputError(
                f"{len(samples) / ANALYSIS_RATE:.1f} s of sound, the speech tokenizer takes {MAXIMUM_SECONDS}: cut it"
            )
        mel = whisper_mel(samples)
        lengths = np.array([mel.shape[1]], dtype=np.int32)
        codes = self.network.run(None, {self.mel: mel[None], self.length: lengths})[0]
        return [int(code) for code in codes.reshape(-1)]

    def batch(self, sounds: list[NDArray[np.float32]]) -> list[list[int]]:
        """Return the codes of several sounds at 16 kHz: in one run where the network takes a batch, else one by one."""
        if not sounds or self.network.get_inputs()[0].shape[0] == 1:
            return [self(samples) for samples in sounds]
        mels = [whisper_mel(samples) for samples in sounds]
        lengths = np.array([mel.shape[1] for mel in mels], dtype=np.int32)
        padded = np.zeros((len(mels), mels[0].shape[0], int(lengths.max())), dtype=np.float32)
        for row, mel in zip(padded, mels, strict=True):
            row[:, : mel.shape[1]] = mel
        rows = self.network.run(None, {self.mel: padded, self.length: lengths})[0]
        return [[int(code) for code in row[: length // 4]] for row, length in zip(rows, lengths, strict=True)]


class SpeakerEncoder:
    """Sound to a vector that says who speaks.

    Parameters
    ----------
    path
        ``campplus.onnx``.
    """

    def __init__(self, path: Path) -> None:
        self.network = open_network(path)
        self.features = self.network.get_inputs()[0].name

    def __call__(self, samples: NDArray[np.float32]) -> Float[Tensor, "1 features"]:
        """Return the speaker vector of sound at 16 kHz."""
        features = speaker_features(torch.from_numpy(samples))
        return torch.from_numpy(self.network.run(None, {self.features: features[None].numpy()})[0].reshape(1, -1))
