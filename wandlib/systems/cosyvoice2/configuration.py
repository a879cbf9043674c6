"""Configuration of CosyVoice's language model: one table of ids for speech, task and text tokens.

Published as three embeddings; here they are the rows of one, in the order in which the head numbers its outputs::

    version 2:  [0, 6564) speech and its end tokens | 6564 sos | 6565 task | text from 6566 on
    version 3:  [0, 6761) speech, and in it sos, task and end tokens       | text from 6761 on

so that an id which the head predicts is the id to feed back, and everything written for causal models runs on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, Qwen2Config

CODES = 6561
"""Codes of the speech tokenizer, 25 for one second of sound."""


@dataclass(frozen=True)
class Layout:
    """Where a version keeps what.

    Attributes
    ----------
    special
        Outputs of the head that are no codes.
    task_rows
        Rows of the embedding of sos and task, 0 where they are rows of the speech embedding.
    sos, task, end, fill
        Distance of these tokens from the number of codes.
    head_bias
        Whether the head has a bias.
    """

    special: int
    task_rows: int
    sos: int
    task: int
    end: int
    fill: int
    head_bias: bool


LAYOUTS = {
    2: Layout(special=3, task_rows=2, sos=3, task=4, end=0, fill=2, head_bias=True),
    3: Layout(special=200, task_rows=0, sos=0, task=2, end=1, fill=3, head_bias=False),
}


class CosyVoice2Config(Qwen2Config):
    """Configuration of :class:`~wandlib.systems.cosyvoice2.language_model.CosyVoice2LM`.

    Parameters
    ----------
    version
        2 or 3: the layout of the ids.
    codes
        Codes of the speech tokenizer.
    text_vocab_size
        Rows of the text embedding.
    kwargs
        Of ``Qwen2Config``, by default the published sizes (Qwen2.5-0.5B); ``vocab_size``, ``eos_token_id`` and
        ``pad_token_id`` follow from the layout.

    Raises
    ------
    ValueError
        For another version.
    """

    model_type = "cosyvoice2_lm"
    __no_type_check__ = True  # jaxtyping would refuse what is no field, and transformers passes such arguments

    version: int = 2
    codes: int = CODES
    text_vocab_size: int = 151_936
    hidden_size: int = 896
    intermediate_size: int = 4864
    num_hidden_layers: int = 24
    num_attention_heads: int = 14
    num_key_value_heads: int | None = 2

    def __post_init__(self, **kwargs: Any) -> None:
        if self.version not in LAYOUTS:
            raise ValueError(f"no layout for version {self.version} of CosyVoice: there are 2 and 3")
        self.vocab_size = self.first_text + self.text_vocab_size
        self.eos_token_id = self.stop_ids
        self.pad_token_id = self.end
        self.tie_word_embeddings = False
        if self.rope_parameters is None and "rope_theta" not in kwargs:
            self.rope_parameters = {"rope_type": "default", "rope_theta": 1_000_000.0}
        super().__post_init__(**kwargs)

    @property
    def layout(self) -> Layout:
        """Where this version keeps what."""
        return LAYOUTS[self.version]

    @property
    def head_size(self) -> int:
        """Outputs of the head: codes, end tokens and, in version 3, sos and task."""
        return self.codes + self.layout.special

    @property
    def sos(self) -> int:
        """Id of the first token of every sequence."""
        return self.codes + self.layout.sos

    @property
    def task(self) -> int:
        """Id of the token between text and speech."""
        return self.codes + self.layout.task

    @property
    def end(self) -> int:
        """Id of the token after the last code."""
        return self.codes + self.layout.end

    @property
    def first_text(self) -> int:
        """Id of the text tokenizer's token 0."""
        return self.head_size + self.layout.task_rows

    @property
    def stop_ids(self) -> list[int]:
        """Ids of the head that are no codes: any of them ends an utterance."""
        return list(range(self.codes, self.head_size))

    def prompt(self, text: list[int], speech: list[int] | None = None) -> list[int]:
        """Return the ids of ``[sos | text | task | speech]``.

        Parameters
        ----------
        text
            Tokens of the text tokenizer: those of the reference's transcript, then those to speak.
        speech
            Codes of the reference; None: none.

        Raises
        ------
        ValueError
            If a token is outside the table.
        """
        speech = speech or []
        for tokens, rows, name in ((text, self.text_vocab_size, "text token"), (speech, self.codes, "code")):
            outside = [token for token in tokens if not 0 <= token < rows]
            if outside:
                raise ValueError(f"{name} {outside[0]} is outside the table: they go from 0 to {rows - 1}")
        return [self.sos, *(self.first_text + token for token in text), self.task, *speech]


AutoConfig.register(CosyVoice2Config.model_type, CosyVoice2Config, exist_ok=True)
