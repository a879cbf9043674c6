"""A published folder, and a student's, to a system that speaks."""

from __future__ import annotations

from pathlib import Path

import torch

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2 import folder as published
from wandlib.systems.cosyvoice2.onnx_models import SpeakerEncoder, SpeechTokenizer
from wandlib.systems.cosyvoice2.speakers import read_speakers
from wandlib.systems.cosyvoice2.system import CosyVoice2System
from wandlib.systems.cosyvoice2.tokenizer import TextTokenizer
from wandlib.systems.memory import explained_memory
from wandlib.systems.students import load_student


def load_system(
    folder: str | Path,
    *,
    device: torch.device | str,
    dtype: torch.dtype | None,
    student: bool | str | Path,
    window: int | None,
) -> CosyVoice2System:
    """Return the system; see :meth:`CosyVoice2System.load`."""
    root, target = published.check_folder(folder), torch.device(device)
    if student is True and (root / "student" / "config.json").is_file():
        student = root / "student"
    with explained_memory():
        language_model = published.load_language_model(root, dtype).to(target)  # type: ignore[arg-type]
        settings, trained = published.load_settings(root), None
        if not isinstance(student, bool):
            trained, stored = load_student(student, language_model, "CosyVoice", dtype or torch.float32)
            window = window or stored
        with torch.device("meta"):
            flow, vocoder = settings.flow(), settings.hift()
        if flow.input_embedding.num_embeddings != language_model.config.codes:
            raise InputError(
                f"llm.pt has {language_model.config.codes} codes, the flow of cosyvoice2.yaml "
                f"{flow.input_embedding.num_embeddings}: they are not of one model"
            )
        published.load_acoustics(flow, root / "flow.pt")
        published.load_acoustics(vocoder, root / "hift.pt", prefix="generator.")
        vocoder.window = torch.hann_window(vocoder.n_fft)  # a constant, not in the file
        return CosyVoice2System(
            language_model,
            flow,
            vocoder,
            TextTokenizer(root / published.BASE),
            SpeechTokenizer(root / "speech_tokenizer_v2.onnx", cuda=target.type == "cuda"),
            SpeakerEncoder(root / "campplus.onnx"),
            student=trained,
            sampling=settings.sampling,
            window=window or 32,
            device=target,
            speakers=read_speakers(root),
        )
