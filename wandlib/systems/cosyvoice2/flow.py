"""The acoustic model: codes to a mel spectrogram by flow matching.

An ordinary differential equation takes noise to speech in ten Euler steps on a cosine grid; the velocity with and
without its conditions is extrapolated (classifier-free guidance)::

    t_n = 1 - cos(pi n / 2N),    x <- x + (t_{n+1} - t_n) ((1 + g) v(x, t | conditions) - g v(x, t | nothing))

The noise is always the same, from a generator with seed 0: published, and what makes a streamed utterance continue
where it stopped.

Source: Lipman et al., arXiv 2210.02747; CosyVoice 2, arXiv 2412.10117, section 2.4.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2.encoder import UpsamplingEncoder
from wandlib.systems.cosyvoice2.estimator import Estimator

NOISE_FRAMES = 15_000
"""300 s: the published noise is that long, and no longer."""


class FlowMatching(nn.Module):
    """The solver around the velocity field.

    Parameters
    ----------
    estimator
        The velocity field.
    guidance
        g, the strength of the guidance.
    steps
        N, Euler steps.
    """

    def __init__(self, estimator: Estimator, guidance: float = 0.7, steps: int = 10) -> None:
        super().__init__()
        self.estimator, self.guidance, self.steps = estimator, guidance, steps

    def forward(
        self,
        features: Float[Tensor, "1 mels frames"],
        speaker: Float[Tensor, "1 mels"],
        prompt: Float[Tensor, "1 mels frames"],
        streaming: bool = False,
    ) -> Float[Tensor, "1 mels frames"]:
        """Return the spectrogram, float32."""
        x = published_noise(features.shape[1], features.shape[2]).to(features)
        # Row 0 with the conditions, row 1 without.
        features, speaker, prompt = (
            torch.cat((given, torch.zeros_like(given))) for given in (features, speaker, prompt)
        )
        grid = torch.linspace(0, 1, self.steps + 1, device=x.device, dtype=x.dtype)
        grid = 1 - torch.cos(grid * 0.5 * math.pi)
        for now, then in pairwise(grid):
            velocity = self.estimator(
                x.expand(2, -1, -1), features, now.expand(2), speaker, prompt, streaming=streaming
            )
            x = x + (then - now) * ((1 + self.guidance) * velocity[:1] - self.guidance * velocity[1:])
        return x.float()


def published_noise(mels: int, frames: int) -> Float[Tensor, "1 mels frames"]:
    """Return the first frames of the noise that everything starts from.

    Raises
    ------
    InputError
        For more than 300 s.
    """
    if frames > NOISE_FRAMES:
        raise InputError(
            f"reference and speech are {frames / 50:.0f} s, the limit of one part is {NOISE_FRAMES // 50}: "
            "split the text or cut the reference"
        )
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, mels, NOISE_FRAMES, generator=generator)[..., :frames]


class Flow(nn.Module):
    """Codes, speaker and reference to a mel spectrogram.

    Parameters
    ----------
    encoder
        Codes' embeddings to features of mel frames.
    decoder
        The flow.
    codes
        Codes of the speech tokenizer.
    inputs
        Features of a code's embedding.
    speaker
        Features of the speaker vector.
    mels
        Bands of the spectrogram.
    """

    def __init__(
        self,
        encoder: UpsamplingEncoder,
        decoder: FlowMatching,
        codes: int = 6561,
        inputs: int = 512,
        speaker: int = 192,
        mels: int = 80,
    ) -> None:
        super().__init__()
        self.input_embedding = nn.Embedding(codes, inputs)
        self.spk_embed_affine_layer = nn.Linear(speaker, mels)
        self.encoder, self.decoder = encoder, decoder
        self.encoder_proj = nn.Linear(encoder.features, mels)

    @property
    def ahead(self) -> int:
        """Codes of look-ahead."""
        return self.encoder.pre_lookahead_layer.ahead

    @torch.inference_mode()
    def forward(
        self,
        codes: Int[Tensor, "1 new"],
        reference_codes: Int[Tensor, "1 old"],
        reference_mel: Float[Tensor, "1 frames mels"],
        speaker: Float[Tensor, "1 features"],
        *,
        streaming: bool = False,
        last: bool = True,
    ) -> Float[Tensor, "1 mels made"]:
        """Return the mel frames of ``codes``, two for each.

        Parameters
        ----------
        codes
            What to make audible, from its first code on.
        reference_codes, reference_mel
            The reference, two frames a code.
        speaker
            The speaker vector.
        streaming
            Hide later blocks, so that what was made does not change when more codes come.
        last
            False: the last ``ahead`` codes are only looked at, and become no frames yet.
        """
        projected = self.spk_embed_affine_layer(F.normalize(speaker, dim=1))
        embedded = self.input_embedding(torch.cat((reference_codes, codes), 1))
        future = None
        if not last:
            embedded, future = embedded[:, : -self.ahead], embedded[:, -self.ahead :]
        features = self.encoder_proj(self.encoder(embedded, future, streaming)).transpose(1, 2)
        old = reference_mel.shape[1]
        prompt = torch.zeros_like(features)
        prompt[..., :old] = reference_mel.transpose(1, 2)
        return self.decoder(features, projected, prompt, streaming)[..., old:]
