"""Training of NeuTTS and Llasa: the prompt, then the codes of the utterance and the end token.

NeuTTS   the prompt holds another recording of the speaker and what it says, as in inference
Llasa    the prompt is the text alone
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2ForCausalLM,
)

from wandlib.profiling.paper_systems import qwen2_half_billion
from wandlib.systems.codec_lm.dialects import END, LLASA, NEUTTS, Dialect
from wandlib.systems.codec_lm.reference import (
    MAXIMUM_SECONDS,
    CodecReader,
    check_codec,
    check_folder,
    code_tokens,
    load_reader,
)
from wandlib.systems.codec_lm.system import CONTEXT, WINDOW
from wandlib.systems.corpora import Recording
from wandlib.systems.model_card import Base
from wandlib.systems.settings import InputError, check_text
from wandlib.systems.students import read_student, stored_dtypes, write_back
from wandlib.systems.training import NO_OTHER, RecordingEncoder, SystemTraining, TenSeconds

LENGTH = f"prompt and speech have more than {CONTEXT} tokens"


class CodecLMEncoder(RecordingEncoder):
    """Recordings to samples.

    Parameters
    ----------
    dialect
        How prompts are written.
    tokenizer
        Of the language model.
    reader
        Recordings to codes.
    """

    maximum_seconds = MAXIMUM_SECONDS

    def __init__(self, dialect: Dialect, tokenizer: PreTrainedTokenizerBase, reader: CodecReader) -> None:
        self.dialect, self.tokenizer, self.reader = dialect, tokenizer, reader
        self.tokens = code_tokens(dialect, tokenizer, reader.codes)
        self.end = tokenizer.get_vocab()[END]

    def sample(self, recording: Recording) -> dict[str, Any] | str:
        """Return ids and the length of the conditioning, or the reason why there are none."""
        other = recording.other if self.dialect.needs_reference else None
        if self.dialect.needs_reference and other is None:
            return NO_OTHER
        for text in (check_text(one.text) for one in (recording, other) if one is not None):
            if not any(character.isalnum() for character in text) or "<|" in text:
                return "nothing to say, or '<|', in its text or in that of its speaker's other recording"
        transcript, before = (None, []) if other is None else (other.text, self.reader(other.audio).tolist())
        codes = self.reader(recording.audio).tolist()
        prompt = self.dialect.prompt(self.tokenizer, recording.text, transcript, before)
        ids = [*prompt, *(self.tokens[code] for code in codes), self.end]
        return {"input_ids": ids, "conditioning": len(prompt)} if len(ids) <= CONTEXT else LENGTH


class CodecLMTraining(SystemTraining):
    """A system of a stock language model and a stock codec."""

    window = WINDOW
    dialect: ClassVar[Dialect]
    kind: ClassVar[type[PreTrainedModel]]

    @property
    def place(self) -> str:
        return f"the language model of {self.base.repository}"

    def check_folder(self, folder: str | Path) -> Path:
        root = check_folder(self.dialect, folder)
        check_codec(self.dialect, root / "codec")
        return root

    def encoder(self, folder: str | Path, batch: int, device: str) -> CodecLMEncoder:
        root = self.check_folder(folder)
        reader = load_reader(self.dialect, root / "codec", device)
        return CodecLMEncoder(self.dialect, AutoTokenizer.from_pretrained(root), reader)

    def config(self, folder: str | Path) -> PreTrainedConfig:
        return AutoConfig.from_pretrained(check_folder(self.dialect, folder))

    def language_model(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        model: Any = AutoModelForCausalLM.from_pretrained(check_folder(self.dialect, folder), dtype=dtype)
        return model

    def export(self, student: Path, target: Path, original: Path | None) -> list[str]:
        if original is None:
            raise InputError("a student takes the other files of the published folder: give it, --checkpoint")
        root = check_folder(self.dialect, original)
        dtype = next(iter(stored_dtypes(root)))
        write_back(read_student(student, self.kind, self.dialect.title, dtype), root, target)
        return []


class NeuTTSTraining(CodecLMTraining):
    """NeuTTS Air."""

    dialect = NEUTTS
    files = "neutts-air"
    ten_seconds = TenSeconds(400, 500)
    kind = Qwen2ForCausalLM
    base = Base(
        system="neutts",
        title="NeuTTS Air",
        repository=NEUTTS.repository,
        page="https://huggingface.co/neuphonic/neutts-air",
        license="apache-2.0",
        terms="Apache-2.0.",
        credits=("NeuTTS Air and NeuCodec: weights (c) Neuphonic, Apache-2.0.",),
        codes_per_second=50.0,
    )

    def random_model(self) -> PreTrainedModel:
        return Qwen2ForCausalLM(qwen2_half_billion(217_652, tie_word_embeddings=True))


class LlasaTraining(CodecLMTraining):
    """Llasa."""

    dialect = LLASA
    files = "Llasa-1B"
    ten_seconds = TenSeconds(400, 500)
    kind = LlamaForCausalLM
    base = Base(
        system="llasa",
        title="Llasa",
        repository=LLASA.repository,
        page="https://arxiv.org/abs/2502.04128",
        license="cc-by-nc-4.0",
        terms="CC-BY-NC-4.0, X-codec 2 likewise: no commercial use. Llama's community license applies, too.",
        credits=("Llasa: Ye et al., arXiv 2502.04128; X-codec 2; Llama 3.2 (c) Meta.",),
        codes_per_second=50.0,
    )

    def random_model(self) -> PreTrainedModel:
        sizes: dict[str, Any] = {
            "hidden_size": 2048,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 8192,
        }
        return LlamaForCausalLM(
            LlamaConfig(vocab_size=193_800, num_hidden_layers=16, tie_word_embeddings=True, **sizes)
        )
