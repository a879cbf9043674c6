"""A reference recording as 32 latent vectors that stand before the text in the language model's prompt.

Conformer, then a perceiver resampler (Zhou et al., "IndexTTS", arXiv 2502.05512).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from wandlib.systems.acoustics.perceiver import PerceiverResampler
from wandlib.systems.base import InputError
from wandlib.systems.indextts.conformer import Conformer

BANDS, LATENTS = 100, 32


class VoiceEncoder(nn.Module):
    """Log-mel spectra to latents.

    Parameters
    ----------
    width
        Of the language model.
    settings
        The ``gpt.condition_module`` part of ``config.yaml``.

    Raises
    ------
    InputError
        If the settings ask for another way of halving the frame rate.
    """

    def __init__(self, width: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        if settings["input_layer"] != "conv2d2":
            raise InputError(
                f"gpt.condition_module.input_layer is {settings['input_layer']!r}; IndexTTS 1.5 has conv2d2"
            )
        self.conditioning_encoder = Conformer(
            BANDS,
            settings["output_size"],
            settings["linear_units"],
            settings["attention_heads"],
            settings["num_blocks"],
        )
        self.perceiver_encoder = PerceiverResampler(
            width,
            settings["output_size"],
            LATENTS,
            heads=settings["attention_heads"],
            expansion=settings["perceiver_mult"],
        )

    def forward(
        self, mel: Float[Tensor, "batch bands time"], valid: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch latents width"]:
        """Latents; ``valid`` says which frames are no padding."""
        frames, halved = self.conditioning_encoder(mel.transpose(1, 2), valid)
        latents: Tensor = self.perceiver_encoder(frames, halved)
        return latents
