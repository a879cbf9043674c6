"""Recordings to codes, for training data: the encoder of the discrete autoencoder that IndexTTS's codes come from.

    log mel [100, T] -> two convolutions that halve the rate -> residual blocks -> z [512, T / 4]
    code = argmin_k |z - e_k|^2

The decoder, which ``dvae.pth`` holds too, is not used: BigVGAN makes the sound. The published code has no training, so
that these codes are those of the published class (equality in the tests), but which mel spectrum the published weights
were trained with is not stated; taken is the one of the references, which has the bands and the hop that fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wandlib.systems.published import check_keys, read_pickle
from wandlib.systems.settings import InputError

UNUSED = ("decoder.", "discrete_loss.", "codebook.cluster_size", "codebook.embed_avg")
"""What of dvae.pth makes no codes."""


class Residual(nn.Module):
    """Add three convolutions of a signal to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, signal: Float[Tensor, "batch channels time"]) -> Float[Tensor, "batch channels time"]:
        added: Tensor = self.net(signal)
        return added + signal


class Codebook(nn.Module):
    """Vectors in columns, one for each code."""

    def __init__(self, width: int, codes: int) -> None:
        super().__init__()
        self.embed: Tensor
        self.register_buffer("embed", torch.empty(width, codes))

    def forward(self, vectors: Float[Tensor, "batch time width"]) -> Int[Tensor, "batch time"]:
        rows = vectors.flatten(0, 1)
        distance = rows.square().sum(1, keepdim=True) - 2 * rows @ self.embed + self.embed.square().sum(0, keepdim=True)
        return distance.argmin(1).view(vectors.shape[:2])


class CodeEncoder(nn.Module):
    """Log-mel frames to codes, a code for four frames.

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
        kernel, layers = settings["kernel_size"], list[nn.Module]()
        channels = settings["channels"]
        for level in range(settings["num_layers"]):
            wider = settings["hidden_dim"] * 2**level
            halve = nn.Conv1d(channels, wider, kernel, stride=2, padding=(kernel - 1) // 2)
            layers.append(nn.Sequential(halve, nn.ReLU()))
            channels = wider
        layers += [Residual(channels) for _ in range(settings["num_resnet_blocks"])]
        self.encoder = nn.Sequential(*layers, nn.Conv1d(channels, settings["codebook_dim"], 1))
        self.codebook = Codebook(settings["codebook_dim"], settings["num_tokens"])

    @classmethod
    def load(cls, path: Path, settings: Mapping[str, Any]) -> CodeEncoder:
        """Read ``dvae.pth``, strictly but for the decoder.

        Raises
        ------
        InputError
            If it is damaged, or does not fit the settings.
        """
        state = {name: tensor for name, tensor in read_pickle(path, "model").items() if not name.startswith(UNUSED)}
        with torch.device("meta"):
            encoder = cls(settings)
        check_keys(path, state, encoder.state_dict())
        encoder.load_state_dict(state, assign=True)
        return encoder.eval().float()

    @torch.inference_mode()
    def forward(self, mel: Float[Tensor, "batch bands frames"]) -> Int[Tensor, "batch codes"]:
        codes: Tensor = self.codebook(self.encoder(mel).transpose(1, 2))
        return codes
