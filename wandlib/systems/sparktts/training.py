"""Training samples of Spark-TTS: the prompt of a clone without transcript, then the codes of the utterance.

    task_tts | text | 32 globals | start codes <|im_end|>

The global tokens come from another recording of the same speaker: those of the utterance itself would tell how it ends.
Upstream published no training code; the sequence is that of its inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from wandlib.systems.sparktts.prompt import START_CODES, clone_prompt, speakable

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
