"""NeuTTS and Llasa as a :class:`SpeechSystem`: a stock language model, a stock codec, 50 codes a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from wandlib.attention.conversion import convert
from wandlib.systems.base import InputError, SpeechSystem
from wandlib.systems.codec_lm.dialects import END, LLASA, NEUTTS, Dialect
from wandlib.systems.codec_lm.reference import CodecReader, check_folder, code_tokens, load_reader
from wandlib.systems.decoding import Choose, Sampler, Utterance
from wandlib.systems.memory import explained_memory
from wandlib.systems.remembered import Remembered
from wandlib.systems.settings import Settings
from wandlib.systems.streaming import AtOnce
from wandlib.systems.students import load_student

WINDOW = 64
CONTEXT = 2048
"""Tokens of prompt and answer together, as published."""


@dataclass(frozen=True)
class CodecLMSettings(Settings):
    """What a caller may set.

    Attributes
    ----------
    transcript
        What the reference says.
    """

    transcript: str | None = None


class NotYet:
    """Choose as ``choose`` does, but none of ``ends`` among the first ``least`` tokens.

    Parameters
    ----------
    choose
        How a token is chosen.
    ends
        Tokens that end an utterance.
    least
        Tokens before one of them.
    """

    def __init__(self, choose: Choose, ends: frozenset[int], least: int) -> None:
        self._choose, self._ends, self._least = choose, list(ends), least

    def __call__(self, scores: Float[Tensor, " vocabulary"], past: list[int]) -> int:
        if len(past) < self._least:
            scores = scores.index_fill(0, torch.tensor(self._ends, device=scores.device), -torch.inf)
        return self._choose(scores, past)


class CodecLMSystem(SpeechSystem):
    """A language model over codec tokens.

    Parameters
    ----------
    language_model, tokenizer
        Unconverted; it is converted in place.
    reader
        Recordings to codes; its codec also makes the sound.
    student
        A language model trained for the window; None: the language model itself.
    """

    codes_per_second = 50.0
    window = WINDOW
    settings_type = CodecLMSettings
    dialect: ClassVar[Dialect]
    """How this system's prompts are written, and its defaults."""

    def __init__(
        self,
        language_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        reader: CodecReader,
        student: PreTrainedModel | None = None,
    ) -> None:
        full = convert(language_model.eval(), window=WINDOW)
        self.models = {"full": full, "window": full if student is None else convert(student.eval(), window=WINDOW)}
        """The language model behind each attention; one object where there is no student."""
        self.tokenizer, self.reader, self.codec = tokenizer, Remembered(reader), reader.codec
        config: Any = reader.codec.config
        self.sample_rate = int(getattr(config, "output_sampling_rate", 0) or config.sampling_rate)
        tokens = code_tokens(self.dialect, tokenizer, reader.codes)
        self._codes = {token: index for index, token in enumerate(tokens)}
        self._ends = frozenset({tokenizer.get_vocab()[END]})

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        codec: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        student: bool | str | Path = True,
    ) -> CodecLMSystem:
        """Read a language model and its codec, in the form that transformers reads.

        Parameters
        ----------
        folder
            Of the language model.
        codec
            Folder of the codec; None: ``codec/`` in ``folder``.
        device
            Of both.
        dtype
            Of the language model; None: as stored on a GPU, fp32 on a CPU.
        student
            Folder of a language model trained for the window; the published folder has none.

        Raises
        ------
        FileNotFoundError
            Naming the first file that is missing.
        InputError
            If the two do not belong together.
        """
        check_folder(cls.dialect, folder)
        if dtype is None and torch.device(device).type == "cpu":
            dtype = torch.float32
        with explained_memory():
            reader = load_reader(cls.dialect, Path(folder) / "codec" if codec is None else Path(codec), device)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto")
            trained, window = None, None
            if not isinstance(student, bool):
                trained, window = load_student(student, model, cls.dialect.title, dtype)
                trained.to(device)
            system = cls(model.to(device), AutoTokenizer.from_pretrained(folder), reader, trained)
        system.window = window or WINDOW
        return system

    @property
    def speakers(self) -> list[str]:
        return []

    @property
    def language_model(self) -> PreTrainedModel:
        """The teacher: a stock model with the window applied to it."""
        return self.models["full"]

    def utterances(
        self, texts: Iterator[str], reference: str | Path | None, settings: Settings, *, streaming: bool
    ) -> Iterator[Utterance]:
        assert isinstance(settings, CodecLMSettings)
        dialect = self.dialect
        temperature = dialect.temperature if settings.temperature is None else settings.temperature
        sampler = Sampler(settings.seed, temperature, settings.top_k or dialect.top_k, dialect.top_p)
        for text in texts:
            prompt = self._prompt(text, reference, settings.transcript)
            yield Utterance(
                model=self.models[settings.attention],
                prompt=prompt,
                choose=NotYet(sampler, self._ends, dialect.least),
                ends=self._ends,
                limit=CONTEXT - prompt.shape[1],
                sound=AtOnce(self._sound),  # these codecs look at all codes at once
                code=self._codes.get,
            )

    @torch.inference_mode()
    def _sound(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Sound of codes."""
        if not len(codes):
            return np.zeros(0, np.float32)
        codec: Any = self.codec
        values: Tensor = codec.decode(torch.from_numpy(codes)[None, None].to(codec.device)).audio_values
        return values.flatten().float().cpu().numpy()

    def _prompt(self, text: str, reference: str | Path | None, transcript: str | None) -> Int[Tensor, "1 time"]:
        """Tokens of the prompt; reference and transcript: both or neither."""
        for given in (text, transcript):
            if given is not None and not any(character.isalnum() for character in given):
                raise InputError(f"the text {given[:20]!r} has nothing to say: write a sentence")
            if given is not None and "<|" in given:
                raise InputError("the text holds '<|', which would be read as a special token of the prompt")
        if (reference is None) != (transcript is None):
            raise InputError("a reference needs its transcript, and a transcript its reference: give both or neither")
        codes = [] if reference is None else self.reader(reference).tolist()
        ids = self.dialect.prompt(self.tokenizer, text, transcript, codes)
        if len(ids) >= CONTEXT:
            raise InputError(
                f"the prompt has {len(ids)} tokens, the model was trained on {CONTEXT} for prompt and speech: shorten "
                "the text or the reference"
            )
        return torch.tensor([ids], device=self.language_model.device)


class NeuTTSSystem(CodecLMSystem):
    """NeuTTS Air."""

    name = "neutts"
    dialect = NEUTTS


class LlasaSystem(CodecLMSystem):
    """Llasa."""

    name = "llasa"
    dialect = LLASA
