"""Training of IndexTTS: one vocabulary for text and codes, and the voice's latents beside it.

    [latent x 32 | start text end | start_code] codes end_code

The latents come from another recording of the same speaker, so that the voice and not the words is learned from them;
they are made once, by the frozen voice encoder, and kept in 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from wandlib.profiling.paper_systems import PAPER_TOKENS, SHAPES
from wandlib.systems.corpora import Recording
from wandlib.systems.indextts.checkpoint import (
    LAYOUT,
    check_settings,
    language_config,
    original_dtype,
    read_language_model,
    write_language_model,
)
from wandlib.systems.indextts.codec import MelCodec
from wandlib.systems.indextts.features import MAXIMUM_SECONDS, LogMel, read_reference
from wandlib.systems.indextts.language_model import IndexConfig, IndexLM
from wandlib.systems.indextts.system import WINDOW
from wandlib.systems.indextts.text import TextNormalizer, Tokenizer, load_wetext
from wandlib.systems.indextts.voice_encoder import VoiceEncoder
from wandlib.systems.model_card import Base
from wandlib.systems.published import read_yaml
from wandlib.systems.settings import InputError
from wandlib.systems.students import read_student
from wandlib.systems.training import NO_OTHER, RecordingEncoder, SystemTraining, TenSeconds

CODES = "dvae.pth"
"""What makes codes of recordings; speaking does not need it."""


def training_sample(
    config: IndexConfig, text: Sequence[int], codes: Sequence[int], latents: Float[Tensor, "latents width"]
) -> dict[str, Any]:
    """Sample for :class:`wandlib.WandTrainer`: input_ids, labels and conditioning, each [time], and the latents.

    Parameters
    ----------
    config
        Of the language model.
    text, codes
        Tokens and codes of one utterance, without start and end.
    latents
        Of the voice.

    Raises
    ------
    InputError
        If the utterance is longer than the model has positions for: no window lifts that limit.
    """
    if len(codes) > config.most_codes or len(text) + 2 > config.text_positions:
        raise InputError(
            f"the utterance has {len(text)} tokens of text and {len(codes)} codes; IndexTTS has positions for "
            f"{config.text_positions - 2} and {config.most_codes}, and no window lifts that: leave it out"
        )
    framed = [config.vocab_size + token for token in (config.start_text, *text, config.end_text)]
    prefix = [config.latent_token] * len(latents) + framed + [config.start_code]
    generated = [*codes, config.end_code]
    return {
        "input_ids": torch.tensor(prefix + generated),
        "labels": torch.tensor([-100] * len(prefix) + generated),
        "conditioning": torch.arange(len(prefix) + len(generated)) < len(prefix),
        "latents": latents,
    }


class IndexEncoder(RecordingEncoder):
    """Recordings to samples.

    Parameters
    ----------
    config
        Of the language model.
    tokenizer
        Text to tokens.
    voice_encoder, codec
        Log-mel spectra to latents and to codes.
    """

    maximum_seconds = MAXIMUM_SECONDS

    def __init__(self, config: IndexConfig, tokenizer: Tokenizer, voice_encoder: VoiceEncoder, codec: MelCodec) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.voice_encoder, self.codec = voice_encoder, codec
        self.device = next(voice_encoder.parameters()).device
        self.log_mel = LogMel().to(self.device)

    @torch.inference_mode()
    def sample(self, recording: Recording) -> dict[str, Any] | str:
        """Return ids, the length of the conditioning and the latents, or the reason why there are none."""
        if recording.other is None:
            return NO_OTHER
        text = [token for part in self.tokenizer.parts(recording.text) for token in part]
        mel, other = (
            self.log_mel(read_reference(file).to(self.device)) for file in (recording.audio, recording.other.audio)
        )
        codes = self.codec.encode(mel)[0].tolist()
        made = training_sample(self.config, text, codes, self.voice_encoder(other)[0].half())
        ids, conditioning = made["input_ids"].tolist(), int(made["conditioning"].sum())
        return {"input_ids": ids, "conditioning": conditioning, "latents": made["latents"]}


class IndexTraining(SystemTraining):
    """IndexTTS 1.5."""

    window = WINDOW
    ten_seconds = TenSeconds(SHAPES["indextts"].conditioning, PAPER_TOKENS["indextts"], SHAPES["indextts"].beams)
    files = "gpt.pth"
    base = Base(
        system="indextts",
        title="IndexTTS 1.5",
        repository=LAYOUT.repository,
        page="https://arxiv.org/abs/2502.05512",
        license="other",
        terms=(
            "bilibili's model license: non-commercial, commercial use needs registration and a\n"
            "written permission; a student is a derivative under the same terms, and carries the license."
        ),
        credits=(
            "bilibili Index. IndexTTS: Zhou et al., *IndexTTS: An Industrial-Level Controllable and Efficient\n"
            "  Zero-Shot Text-To-Speech System*, arXiv 2502.05512; weights (c) bilibili.",
        ),
        codes_per_second=24_000 / 1024,
    )

    def check_folder(self, folder: str | Path) -> Path:
        root = LAYOUT.check(folder)
        if not (root / CODES).is_file():
            raise FileNotFoundError(
                f"no {CODES} in {str(root)!r}, which makes the codes of training: {LAYOUT.download}"
            )
        return root

    def encoder(self, folder: str | Path, batch: int, device: str) -> IndexEncoder:
        root = self.check_folder(folder)
        settings: Any = check_settings(read_yaml(root / "config.yaml"))
        if not isinstance(settings.get("vqvae"), dict):
            raise InputError("config.yaml has no part 'vqvae', which makes the codes of training: download it again")
        tokenizer = Tokenizer(root / "bpe.model", TextNormalizer(load_wetext()))
        _, voice = read_language_model(root / "gpt.pth", settings["gpt"])
        codec = MelCodec.load(root / CODES, settings["vqvae"])
        return IndexEncoder(language_config(settings["gpt"]), tokenizer, voice.to(device), codec.to(device))

    def config(self, folder: str | Path) -> PreTrainedConfig:
        return language_config(check_settings(read_yaml(LAYOUT.check(folder) / "config.yaml"))["gpt"])

    def language_model(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        root = LAYOUT.check(folder)
        model, _ = read_language_model(root / "gpt.pth", check_settings(read_yaml(root / "config.yaml"))["gpt"])
        model.text_head.requires_grad_(False)  # no text is predicted here
        return model.to(dtype)  # type: ignore[arg-type]

    def export(self, student: Path, target: Path, original: Path | None) -> list[str]:
        if original is None:
            raise InputError("gpt.pth holds the voice encoder too, the original's: give its folder, --checkpoint")
        file = LAYOUT.check(original) / "gpt.pth"
        model = read_student(student, IndexLM, "IndexTTS", original_dtype(file))
        write_language_model(target, model, file)
        return []

    def random_model(self) -> PreTrainedModel:
        sizes = {"n_embd": 1280, "n_layer": 24, "n_head": 20, "n_positions": 803 + 602 + 32}
        return IndexLM(IndexConfig(**sizes, attn_implementation="sdpa"))
