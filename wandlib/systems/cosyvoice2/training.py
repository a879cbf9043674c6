"""Training of CosyVoice 2: samples of recordings, the language model, and ``llm.pt`` there and back.

A sample is ``[sos | text | task]``, which is conditioning, then the codes of the recording and the end token.

Source: the published training recipe of CosyVoice 2, without its interleaved half.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, Qwen2Config

from wandlib.profiling.paper_systems import PAPER_TOKENS, SHAPES
from wandlib.systems.corpora import Recording
from wandlib.systems.cosyvoice2 import folder as published
from wandlib.systems.cosyvoice2.configuration import CosyVoice2Config
from wandlib.systems.cosyvoice2.features import ANALYSIS_RATE
from wandlib.systems.cosyvoice2.language_model import CosyVoice2LM
from wandlib.systems.cosyvoice2.llm_weights import config_of, export_llm
from wandlib.systems.cosyvoice2.onnx_models import MAXIMUM_SECONDS, SpeechTokenizer
from wandlib.systems.cosyvoice2.reference import at, read_audio
from wandlib.systems.cosyvoice2.text import TextFrontend, pronounceable
from wandlib.systems.cosyvoice2.tokenizer import TextTokenizer
from wandlib.systems.model_card import Base
from wandlib.systems.settings import InputError
from wandlib.systems.sound_file import check_finite
from wandlib.systems.students import read_student
from wandlib.systems.training import NO_AUDIO, SystemTraining, TenSeconds, read_recording, skipped

SPEECH_TOKENIZER = published.REFERENCES[1]
NEEDED = (*published.LANGUAGE_MODEL, *published.TOKENIZER, SPEECH_TOKENIZER)
MINIMUM_SECONDS = 0.1
"""Of a recording: two codes. The spectrum alone takes 12.5 ms."""


class CosyVoice2Encoder:
    """Recordings to samples.

    Parameters
    ----------
    folder
        The published folder.
    batch
        Recordings in one run of the speech tokenizer.
    cuda
        Use the GPU where onnxruntime can.
    """

    def __init__(self, folder: str | Path, batch: int = 16, *, cuda: bool = False) -> None:
        root = published.check_folder(folder, NEEDED)
        batched = root / SPEECH_TOKENIZER.replace(".onnx", ".batch.onnx")
        self.speech = SpeechTokenizer(batched if batched.is_file() else root / SPEECH_TOKENIZER, cuda=cuda)
        self.text = TextTokenizer(root / published.BASE)
        self.frontend = TextFrontend(lambda text: len(self.text(text)))
        self.config = config_in(root)
        self.batch = batch

    def __call__(self, recordings: list[Recording]) -> Iterator[dict[str, Any]]:
        """Yield a sample for each recording, or ``{"skipped": reason, "audio": file}``."""
        for start in range(0, len(recordings), self.batch):
            some = recordings[start : start + self.batch]
            heard = [self.read(recording) for recording in some]
            codes = iter(self.speech.batch([sound for sound in heard if not isinstance(sound, str)]))
            for recording, sound in zip(some, heard, strict=True):
                reason = sound if isinstance(sound, str) else None
                found = [] if reason else next(codes)
                if reason is None and not found:
                    reason = "no codes"
                yield skipped(recording, reason) if reason else self.sample(recording, found)

    def read(self, recording: Recording) -> Any:
        """Return the samples at 16 kHz, or the reason why there are none to be used."""
        if (reason := read_recording(recording, MAXIMUM_SECONDS)) is not None:
            return reason
        if not pronounceable(recording.text):
            return "nothing to pronounce"
        try:
            samples, rate = read_audio(recording.audio)
            check_finite(samples)
        except InputError:
            return NO_AUDIO
        if len(samples) < MINIMUM_SECONDS * rate:
            return f"shorter than {MINIMUM_SECONDS} s"
        return at(samples, rate, ANALYSIS_RATE)

    def sample(self, recording: Recording, codes: list[int]) -> dict[str, Any]:
        """Return ids and the length of the conditioning."""
        text = recording.text if recording.normalized else self.frontend.normalize(recording.text)
        prompt = self.config.prompt(self.text(text))
        return {"input_ids": [*prompt, *codes, self.config.end], "conditioning": len(prompt)}


def config_in(root: Path) -> CosyVoice2Config:
    """Return the configuration of a folder's language model."""
    weights = published.unread_tensors(root / "llm.pt")
    return config_of(weights, Qwen2Config.from_pretrained(root / published.BASE, local_files_only=True))


class CosyVoice2Training(SystemTraining):
    """CosyVoice 2."""

    window = 32
    ten_seconds = TenSeconds(SHAPES["cosyvoice2"].conditioning, PAPER_TOKENS["cosyvoice2"])
    files = "llm.pt"
    base = Base(
        system="cosyvoice2",
        title="CosyVoice 2",
        repository=published.REPOSITORY,
        page="https://arxiv.org/abs/2412.10117",
        license="apache-2.0",
        terms="Apache-2.0.",
        credits=(
            "CosyVoice 2: Du et al., *CosyVoice 2: Scalable Streaming Speech Synthesis with Large Language Models*,\n"
            "  arXiv 2412.10117; code and weights (c) Alibaba Inc., Apache-2.0.",
            "The decoder was initialized from Qwen2.5-0.5B (Apache-2.0).",
        ),
        codes_per_second=25.0,
    )

    def check_folder(self, folder: str | Path) -> Path:
        return published.check_folder(folder, NEEDED)

    def encoder(self, folder: str | Path, batch: int, device: str) -> CosyVoice2Encoder:
        return CosyVoice2Encoder(folder, batch, cuda=device.startswith("cuda"))

    def config(self, folder: str | Path) -> PreTrainedConfig:
        return config_in(published.check_folder(folder, published.LANGUAGE_MODEL))

    def language_model(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        return published.load_language_model(folder, dtype)

    def export(self, student: Path, target: Path, original: Path | None) -> list[str]:
        file = None if original is None else original / "llm.pt"
        dtype, config = torch.float32, None
        if file is not None and file.is_file():
            assert original is not None
            config, dtype = self.config(original), next(iter(published.unread_tensors(file).values())).dtype
        model: CosyVoice2LM = read_student(student, CosyVoice2LM, "CosyVoice", dtype)
        if config is not None:
            for name in ("version", "codes", "text_vocab_size", "hidden_size", "num_hidden_layers"):
                if getattr(config, name) != getattr(model.config, name):
                    raise InputError(
                        f"the student's {name} is {getattr(model.config, name)}, that of {str(file)!r} "
                        f"{getattr(config, name)}: it was made of another checkpoint"
                    )
        export_llm(model, target, dtype)
        stale = target.parent / "vllm"
        return [f"delete {str(stale)!r}: a copy of the former weights, which is used first"] if stale.is_dir() else []

    def random_model(self) -> PreTrainedModel:
        return CosyVoice2LM(CosyVoice2Config())
