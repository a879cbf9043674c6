"""Training samples of IndexTTS: one vocabulary for text and codes, and the voice's latents beside it.

    [latent x 32 | start text end | start_code] codes end_code

The latents come from another recording of the same speaker, so that the voice and not the words is learned from them;
they are made once, by the frozen voice encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wandlib.systems.base import InputError
from wandlib.systems.indextts.language_model import IndexLM


def training_sample(
    model: IndexLM, text: Sequence[int], codes: Sequence[int], latents: Float[Tensor, "latents width"]
) -> dict[str, Any]:
    """Sample for :class:`wandlib.WandTrainer`: input_ids, labels and conditioning, each [time], and the latents.

    Parameters
    ----------
    text, codes
        Tokens and codes of one utterance, without start and end.
    latents
        Of the voice.

    Raises
    ------
    InputError
        If the utterance is longer than the model has positions for: no window lifts that limit.
    """
    config = model.config
    if len(codes) > config.most_codes or len(text) + 2 > config.text_positions:
        raise InputError(
            f"the utterance has {len(text)} tokens of text and {len(codes)} codes; IndexTTS has positions for "
            f"{config.text_positions - 2} and {config.most_codes}, and no window lifts that: leave it out"
        )
    framed = [config.vocab_size + token for token in (config.start_text, *text, config.end_text)]
    prefix = [model.latent_token] * len(latents) + framed + [config.start_code]
    generated = [*codes, config.end_code]
    return {
        "input_ids": torch.tensor(prefix + generated),
        "labels": torch.tensor([-100] * len(prefix) + generated),
        "conditioning": torch.arange(len(prefix) + len(generated)) < len(prefix),
        "latents": latents,
    }
