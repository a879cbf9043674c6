"""Training of Spark-TTS: the prompt of a clone without transcript, then the codes of the utterance.

    task_tts | text | 32 globals | start codes <|im_end|>

The global tokens come from another recording of the same speaker: those of the utterance itself would tell how it ends.
Upstream published no training code; the sequence is that of its inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2ForCausalLM,
)

from wandlib.profiling.paper_systems import PAPER_TOKENS, SHAPES, qwen2_half_billion
from wandlib.systems.corpora import Recording
from wandlib.systems.model_card import Base
from wandlib.systems.settings import InputError
from wandlib.systems.sparktts.checkpoint import LAYOUT
from wandlib.systems.sparktts.prompt import START_CODES, clone_prompt, speakable
from wandlib.systems.sparktts.reference import MAXIMUM_SECONDS, ReferenceReader
from wandlib.systems.sparktts.system import WINDOW, load_reader
from wandlib.systems.students import read_student, stored_dtypes, write_back
from wandlib.systems.training import NO_OTHER, RecordingEncoder, SystemTraining, TenSeconds

END = "<|im_end|>"


def training_sample(
    tokenizer: PreTrainedTokenizerBase, text: str, codes: Sequence[int], tokens: Sequence[int]
) -> dict[str, Any]:
    """Sample for :class:`wandlib.WandTrainer`: input_ids, labels and conditioning, each [time].

    Parameters
    ----------
    text, codes
        What is said, and the semantic codes of it.
    tokens
        Global tokens of the voice.

    Raises
    ------
    InputError
        If the text has nothing to say or holds a special token.
    """
    prefix: list[int] = tokenizer(clone_prompt(speakable(text), tokens)).input_ids
    spoken = "".join(f"<|bicodec_semantic_{code}|>" for code in codes)
    # As in inference the model makes the start token itself: it is generated, not conditioning.
    generated: list[int] = tokenizer(f"{START_CODES}{spoken}{END}").input_ids
    return {
        "input_ids": torch.tensor(prefix + generated),
        "labels": torch.tensor([-100] * len(prefix) + generated),
        "conditioning": torch.arange(len(prefix) + len(generated)) < len(prefix),
    }


class SparkEncoder(RecordingEncoder):
    """Recordings to samples.

    Parameters
    ----------
    tokenizer
        Of the language model.
    reader
        Recordings to codes and global tokens.
    """

    maximum_seconds = MAXIMUM_SECONDS

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reader: ReferenceReader) -> None:
        self.tokenizer, self.reader = tokenizer, reader

    def sample(self, recording: Recording) -> dict[str, Any] | str:
        """Return ids and the length of the conditioning, or the reason why there are none."""
        if recording.other is None:
            return NO_OTHER
        speakable(recording.text)  # before the networks run
        sound, other = self.reader.read(recording.audio), self.reader.read(recording.other.audio)
        codes, tokens = self.reader.codes(sound).tolist(), self.reader.tokens(other).tolist()
        made = training_sample(self.tokenizer, recording.text, codes, tokens)
        return {"input_ids": made["input_ids"].tolist(), "conditioning": int(made["conditioning"].sum())}


class SparkTraining(SystemTraining):
    """Spark-TTS."""

    window = WINDOW
    ten_seconds = TenSeconds(SHAPES["sparktts"].conditioning, PAPER_TOKENS["sparktts"])
    files = "LLM"
    base = Base(
        system="sparktts",
        title="Spark-TTS",
        repository=LAYOUT.repository,
        page="https://arxiv.org/abs/2503.01710",
        license="cc-by-nc-sa-4.0",
        terms="CC-BY-NC-SA-4.0: no commercial use, and whatever is made of it is shared alike.",
        credits=(
            "Spark-TTS: Wang et al., *Spark-TTS: An Efficient LLM-Based Text-to-Speech Model with Single-Stream\n"
            "  Decoupled Speech Tokens*, arXiv 2503.01710; weights (c) SparkAudio, CC-BY-NC-SA-4.0.",
            "The decoder was initialized from Qwen2.5-0.5B (Apache-2.0).",
        ),
        codes_per_second=50.0,
    )

    def check_folder(self, folder: str | Path) -> Path:
        return LAYOUT.check(folder)

    def encoder(self, folder: str | Path, batch: int, device: str) -> SparkEncoder:
        root = LAYOUT.check(folder)
        reader, _ = load_reader(root, device)
        return SparkEncoder(AutoTokenizer.from_pretrained(root / "LLM"), reader)

    def config(self, folder: str | Path) -> PreTrainedConfig:
        return AutoConfig.from_pretrained(LAYOUT.check(folder) / "LLM")

    def language_model(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(LAYOUT.check(folder) / "LLM", dtype=dtype)
        return model

    def export(self, student: Path, target: Path, original: Path | None) -> list[str]:
        if original is None:
            raise InputError("a student takes the other files of the published LLM/: give its folder, --checkpoint")
        root = LAYOUT.check(original)
        dtype = next(iter(stored_dtypes(root / "LLM")))
        model = read_student(student, Qwen2ForCausalLM, "Spark-TTS", dtype)
        write_back(model, root / "LLM", target)
        return []

    def random_model(self) -> PreTrainedModel:
        return Qwen2ForCausalLM(qwen2_half_billion(SHAPES["sparktts"].config.vocab_size, tie_word_embeddings=True))
