"""Prompts of Spark-TTS: plain text with special tokens, in three modes.

    clone                 task_tts | text | 32 globals of the reference                   -> codes
    clone with transcript task_tts | transcript text | 32 globals | codes of the reference -> codes go on
    control               task_controllable_tts | text | gender, pitch, speed             -> globals, then codes

Everything in the prompt is conditioning. In control mode the model first generates the style and the globals: they are
conditioning too, up to and with ``<|start_semantic_token|>``; only codes roll through the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from wandlib.systems.base import InputError

GENDERS = ("female", "male")
LEVELS = ("very_low", "low", "moderate", "high", "very_high")
START_CODES = "<|start_semantic_token|>"


@dataclass(frozen=True)
class Control:
    """A voice that is described instead of cloned.

    Attributes
    ----------
    gender
        "female" or "male".
    pitch, speed
        "very_low", "low", "moderate", "high" or "very_high".

    Raises
    ------
    InputError
        For another value.
    """

    gender: str = "female"
    pitch: str = "moderate"
    speed: str = "moderate"

    def __post_init__(self) -> None:
        for name, allowed in (("gender", GENDERS), ("pitch", LEVELS), ("speed", LEVELS)):
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"{name} is one of {', '.join(allowed)}, not {value!r}")

    @property
    def tokens(self) -> str:
        """The three labels."""
        return (
            f"<|gender_{GENDERS.index(self.gender)}|><|pitch_label_{LEVELS.index(self.pitch)}|>"
            f"<|speed_label_{LEVELS.index(self.speed)}|>"
        )


def clone_prompt(
    text: str, tokens: Sequence[int], transcript: str | None = None, codes: Sequence[int] | None = None
) -> str:
    """Prompt in the voice of a reference.

    Parameters
    ----------
    text
        What to say.
    tokens
        Global tokens of the reference.
    transcript, codes
        What the reference says, and its semantic codes: both or neither.
    """
    voice = "".join(f"<|bicodec_global_{token}|>" for token in tokens)
    spoken = "".join(f"<|bicodec_semantic_{code}|>" for code in codes or ())
    head = (
        f"<|task_tts|><|start_content|>{transcript or ''}{text}<|end_content|>"
        f"<|start_global_token|>{voice}<|end_global_token|>"
    )
    return f"{head}{START_CODES}{spoken}" if transcript is not None else head


def control_prompt(text: str, control: Control) -> str:
    """Prompt in a voice that is described."""
    return (
        f"<|task_controllable_tts|><|start_content|>{text}<|end_content|>"
        f"<|start_style_label|>{control.tokens}<|end_style_label|>"
    )


def speakable(text: str) -> str:
    """Return ``text`` if it can be spoken.

    Raises
    ------
    InputError
        If it is empty, has no letter or digit, or holds ``<|``, which starts a special token of the prompt.
    """
    if not any(character.isalnum() for character in text):
        raise InputError(f"the text {text[:20]!r} has nothing to say: write a sentence")
    if "<|" in text:
        raise InputError("the text holds '<|', which would be read as a special token of the prompt: take it out")
    return text


class AcousticVocabulary:
    """Which token of the language model stands for which code or global token.

    Parameters
    ----------
    tokenizer
        Of the language model.
    codes, globals_
        How many semantic codes and global tokens the codec has.

    Raises
    ------
    InputError
        If the tokenizer lacks one of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, codes: int, globals_: int) -> None:
        known = tokenizer.get_vocab()
        tables = {}
        for kind, count in (("semantic", codes), ("global", globals_)):
            names = [f"<|bicodec_{kind}_{index}|>" for index in range(count)]
            absent = next((name for name in names if name not in known), None)
            if absent is not None:
                raise InputError(f"the tokenizer in LLM/ has no {absent}: take LLM/ and BiCodec/ from the same release")
            tables[kind] = {known[name]: index for index, name in enumerate(names)}
        if START_CODES not in known:
            raise InputError(f"the tokenizer in LLM/ has no {START_CODES}: it is not Spark-TTS's")
        self._codes, self._globals = tables["semantic"], tables["global"]
        self.start_codes = known[START_CODES]
        """The token that ends the conditioning in control mode."""

    def codes_in(self, ids: Sequence[int]) -> Int[Tensor, " codes"]:
        """Semantic codes among generated tokens; whatever else was generated is passed over."""
        return torch.tensor([self._codes[token] for token in ids if token in self._codes], dtype=torch.long)

    def globals_in(self, ids: Sequence[int]) -> Int[Tensor, " tokens"]:
        """Global tokens among generated tokens."""
        return torch.tensor([self._globals[token] for token in ids if token in self._globals], dtype=torch.long)
