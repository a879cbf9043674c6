"""Folders of a language model and its codec, and recordings to codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from wandlib.systems.acoustics.resample import resample
from wandlib.systems.codec_lm.dialects import END, Dialect
from wandlib.systems.published import Layout
from wandlib.systems.settings import InputError
from wandlib.systems.sound_file import read_sound

MAXIMUM_SECONDS = 20.0
"""Of a reference: half of the context."""


class CodecReader:
    """Recordings to codes.

    Parameters
    ----------
    codec, extractor
        The codec, and what makes its inputs of a waveform.
    """

    def __init__(self, codec: PreTrainedModel, extractor: Any) -> None:
        self.codec, self.extractor = codec.eval(), extractor
        config: Any = codec.config
        self.rate = int(getattr(config, "input_sampling_rate", 0) or config.sampling_rate)
        self.codes = int(np.prod(config.quantization_levels))
        """How many there are."""

    @torch.inference_mode()
    def __call__(self, reference: str | Path) -> Int[Tensor, " codes"]:
        """Return the codes of a recording; InputError as :func:`wandlib.systems.sound_file.read_sound`."""
        samples, rate = read_sound(reference, MAXIMUM_SECONDS)
        sound = resample(torch.from_numpy(samples.mean(axis=1)).float()[None], rate, self.rate)
        inputs = self.extractor(sound[0].numpy(), sampling_rate=self.rate, return_tensors="pt")
        codec: Any = self.codec
        codes: Tensor = codec.encode(**inputs.to(codec.device)).audio_codes
        return codes.flatten().cpu()


SYSTEM = "NeuTTS or Llasa"
"""As :data:`wandlib.systems.published.MARKERS` has it: which of the two it is, codec and tokenizer tell."""


def check_folder(dialect: Dialect, folder: str | Path) -> Path:
    """Return the folder of a language model, if it has its config and tokenizer; else as :meth:`Layout.check`."""
    return Layout(SYSTEM, dialect.repository, ("config.json", "tokenizer_config.json")).check(folder)


def check_codec(dialect: Dialect, folder: str | Path) -> Path:
    """Return the folder of a codec, likewise."""
    return Layout(SYSTEM, dialect.codec_repository, ("config.json", "preprocessor_config.json")).check(folder)


def load_reader(dialect: Dialect, folder: Path, device: str | torch.device) -> CodecReader:
    """Return the codec in a folder.

    Raises
    ------
    FileNotFoundError
        Naming the first file that is missing.
    InputError
        If it is another codec.
    """
    check_codec(dialect, folder)
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind != dialect.codec:
        raise InputError(f"{str(folder)!r} holds {kind}, {dialect.title} needs {dialect.codec}")
    codec: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    return CodecReader(codec.to(device), AutoFeatureExtractor.from_pretrained(folder))


def code_tokens(dialect: Dialect, tokenizer: PreTrainedTokenizerBase, count: int) -> list[int]:
    """Return the token of each code.

    Raises
    ------
    InputError
        If the tokenizer lacks one, or the end token.
    """
    known = tokenizer.get_vocab()
    names = [dialect.code.format(index) for index in range(count)]
    absent = next((name for name in (*names, END) if name not in known), None)
    if absent is not None:
        raise InputError(f"the tokenizer has no {absent}: it is not that of {dialect.repository}")
    return [known[name] for name in names]
