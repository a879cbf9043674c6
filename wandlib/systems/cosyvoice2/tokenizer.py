"""The text tokenizer: Qwen2's, with the tokens for breath, laughter, emphasis and instructions that CosyVoice adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

END_OF_PROMPT = "<|endofprompt|>"
"""Between an instruction and the text to speak."""
ADDED = (
    "<|im_start|>",
    "<|im_end|>",
    END_OF_PROMPT,
    "[breath]",
    "<strong>",
    "</strong>",
    "[noise]",
    "[laughter]",
    "[cough]",
    "[clucking]",
    "[accent]",
    "[quick_breath]",
    "<laughter>",
    "</laughter>",
    "[hissing]",
    "[sigh]",
    "[vocalized-noise]",
    "[lipsmack]",
    "[mn]",
)
"""Special tokens, in the order of their ids."""


class TextTokenizer:
    """Text to the text tokens of the language model.

    Parameters
    ----------
    folder
        ``CosyVoice-BlankEN``: vocab.json, merges.txt, tokenizer_config.json.
    """

    def __init__(self, folder: str | Path) -> None:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        special = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "additional_special_tokens": list(ADDED)}
        tokenizer.add_special_tokens(special)
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        """Return the tokens of ``text``; special tokens may be written in it."""
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids

    def decode(self, tokens: list[int]) -> str:
        """Return the text of ``tokens``, special ones left out."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text
