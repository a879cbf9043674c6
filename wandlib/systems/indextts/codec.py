"""Mel spectra to the codes that the language model is trained on: the encoder of a discrete autoencoder.

Two convolutions that halve the frame rate, residual blocks, and the nearest of 8,192 vectors: 23.4 codes a second
(Betker, arXiv 2305.07243). Only training data needs it; nothing decodes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wandlib.systems.base import InputError
from wandlib.systems.published import check_keys, read_pickle

UNUSED = ("decoder.", "discrete_loss.", "codebook.cluster_size", "codebook.embed_avg")
"""What of dvae.pth makes no codes."""

Frames = Float[Tensor, "batch channels time"]


class ResidualBlock(nn.Module):
    """Three convolutions, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, frames: Frames) -> Frames:
        residual: Tensor = self.net(frames)
        return residual + frames


class Codebook(nn.Module):
    """Vectors, and which of them is nearest."""

    embed: Tensor

    def __init__(self, width: int, codes: int) -> None:
        super().__init__()
        self.register_buffer("embed", torch.zeros(width, codes))

    def forward(self, vectors: Float[Tensor, "batch time width"]) -> Int[Tensor, "batch time"]:
        # The length of the vector itself is the same for all codes.
        return (self.embed.square().sum(0) - 2 * vectors @ self.embed).argmin(-1)


class MelCodec(nn.Module):
    """Log-mel spectra to codes.

    Parameters
    ----------
    settings
        The ``vqvae`` part of ``config.yaml``.

    Raises
    ------
    InputError
        If the settings are those of another encoder.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        if settings.get("positional_dims") != 1 or settings.get("use_transposed_convs", True):
            raise InputError("the vqvae part of config.yaml is not that of IndexTTS 1.5: download the file again")
        widths = [settings["channels"], *(settings["hidden_dim"] << layer for layer in range(settings["num_layers"]))]
        kernel, inner = settings["kernel_size"], widths[-1]
        halving = (
            nn.Sequential(nn.Conv1d(before, after, kernel, stride=2, padding=(kernel - 1) // 2), nn.ReLU())
            for before, after in pairwise(widths)
        )
        blocks = (ResidualBlock(inner) for _ in range(settings["num_resnet_blocks"]))
        self.encoder = nn.Sequential(*halving, *blocks, nn.Conv1d(inner, settings["codebook_dim"], 1))
        self.codebook = Codebook(settings["codebook_dim"], settings["num_tokens"])

    @classmethod
    def load(cls, path: Path, settings: Mapping[str, Any]) -> MelCodec:
        """Read ``dvae.pth``, strictly but for the decoder.

        Raises
        ------
        FileNotFoundError
            If there is no such file: speech alone does not need it.
        InputError
            If the file is damaged or does not fit ``settings``.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path.name} in {str(path.parent)!r}: training data is made with it; get it too"
            )
        state = {name: tensor for name, tensor in read_pickle(path, "model").items() if not name.startswith(UNUSED)}
        if not state:
            raise InputError(f"{path.name} holds no encoder: it is not the autoencoder of IndexTTS")
        with torch.device("meta"):
            codec = cls(settings)
        check_keys(path, state, codec.state_dict())
        codec.load_state_dict(state, strict=True, assign=True)
        return codec.eval().float()

    @torch.inference_mode()
    def encode(self, mel: Float[Tensor, "batch bands time"]) -> Int[Tensor, "batch codes"]:
        """Codes of a log-mel spectrum as :class:`wandlib.systems.indextts.features.LogMel` makes it."""
        codes: Tensor = self.codebook(self.encoder(mel).transpose(1, 2))
        return codes
