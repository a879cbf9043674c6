"""What tells the systems of this kind apart: how a prompt is written, what a code is called, how codes are drawn.

    NeuTTS  user: Convert the text to speech:[start] phones of transcript and text [end] / assistant:[speech] codes ...
    Llasa   the model's own chat template around the text; the answer starts with [speech] codes ...

With a reference, its codes are the start of the answer, and the text starts with what it says.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from wandlib.systems.base import InputError
from wandlib.systems.espeak import LOGGER, ONE_READER, load_espeak

START, END = "<|SPEECH_GENERATION_START|>", "<|SPEECH_GENERATION_END|>"


@dataclass(frozen=True)
class Dialect(ABC):
    """One system's prompt and settings.

    Attributes
    ----------
    title
        Its name.
    needs_reference
        Whether there is no prompt without a recording and what it says.
    repository, codec_repository
        Where the folders of language model and codec are published.
    codec
        The ``model_type`` of its codec.
    code
        A code's token, with ``{}`` for the number.
    temperature, top_k, top_p, least
        Of the sampling, as published; ``least`` codes come before an end.
    """

    title: str
    needs_reference: bool
    repository: str
    codec_repository: str
    codec: str
    code: str
    temperature: float
    top_k: int
    top_p: float
    least: int

    @abstractmethod
    def prompt(
        self, tokenizer: PreTrainedTokenizerBase, text: str, transcript: str | None, codes: Sequence[int]
    ) -> list[int]:
        """Tokens of the prompt."""

    def spoken(self, codes: Sequence[int]) -> str:
        """Return the start of the answer."""
        return START + "".join(self.code.format(code) for code in codes)


class NeuTTS(Dialect):
    """NeuTTS Air: phones of espeak, a reference and its transcript."""

    def prompt(
        self, tokenizer: PreTrainedTokenizerBase, text: str, transcript: str | None, codes: Sequence[int]
    ) -> list[int]:
        if transcript is None:
            raise InputError("NeuTTS needs a reference and what it says: give reference= and transcript=")
        phones = f"{self.phones(transcript)} {self.phones(text)}"
        asked = f"user: Convert the text to speech:<|TEXT_PROMPT_START|>{phones}<|TEXT_PROMPT_END|>\nassistant:"
        return list(tokenizer(asked + self.spoken(codes)).input_ids)

    def phones(self, text: str) -> str:
        """American English in phones, with marks and stress, one space between words.

        Raises
        ------
        InputError
            If espeak reads nothing in the text.
        """
        with ONE_READER:
            read = espeak()([text])
        phones = " ".join(" ".join(read).split())
        if not phones:
            raise InputError(f"espeak reads nothing in {text[:20]!r}: write words in Latin letters")
        return phones


class Llasa(Dialect):
    """Llasa: the chat of Llama 3, a reference or none."""

    def prompt(
        self, tokenizer: PreTrainedTokenizerBase, text: str, transcript: str | None, codes: Sequence[int]
    ) -> list[int]:
        said = f"{transcript} {text}" if transcript else text
        chat = [
            {
                "role": "user",
                "content": f"Convert the text to speech:<|TEXT_UNDERSTANDING_START|>{said}<|TEXT_UNDERSTANDING_END|>",
            },
            {"role": "assistant", "content": self.spoken(codes)},
        ]
        ids: Any = tokenizer.apply_chat_template(chat, tokenize=True, continue_final_message=True, return_dict=False)
        return list(ids)


@cache
def espeak() -> Callable[[list[str]], list[str]]:
    """Return the phonemizer that NeuTTS was trained with."""
    load_espeak()
    from phonemizer.backend import EspeakBackend

    phonemize: Callable[[list[str]], list[str]] = EspeakBackend(
        "en-us",
        preserve_punctuation=True,
        with_stress=True,
        words_mismatch="ignore",
        language_switch="remove-flags",  # "(ko)" where it reads Korean is no phone
        logger=logging.getLogger(LOGGER),
    ).phonemize
    return phonemize


NEUTTS = NeuTTS(
    title="neutts",
    needs_reference=True,
    repository="neuphonic/neutts-air",
    codec_repository="neuphonic/neucodec",
    codec="neucodec",
    code="<|speech_{}|>",
    temperature=1.0,
    top_k=50,
    top_p=1.0,
    least=50,
)
LLASA = Llasa(
    title="llasa",
    needs_reference=False,
    repository="HKUSTAudio/Llasa-1B",
    codec_repository="HKUSTAudio/xcodec2-hf",
    codec="xcodec2",
    code="<|s_{}|>",
    temperature=0.8,
    top_k=50,
    top_p=1.0,
    least=0,
)
