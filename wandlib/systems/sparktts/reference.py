"""A reference recording as Spark-TTS takes it: level, a clip of 6 s, wav2vec features, codes and global tokens.

First channel, resampled to 16 kHz, brought to a common level; the whole recording gives the semantic codes, its first
6 s (repeated where it is shorter) the global tokens. Features are the mean of three layers of wav2vec 2.0 XLSR-53
(Baevski et al., arXiv 2006.11477).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from jaxtyping import Float, Float64, Int
from numpy import ndarray
from torch import Tensor
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

from wandlib.systems.acoustics.mel import MelSpectrogram
from wandlib.systems.sound_file import read_sound
from wandlib.systems.sparktts.bicodec import BiCodec

LAYERS = (11, 14, 16)
"""Of wav2vec 2.0, whose hidden states are averaged."""
NEEDED_LAYERS = max(LAYERS) + 1
"""One more than the last one read: the final norm follows the last layer that is kept."""
MAXIMUM_SECONDS = 60.0
LEVEL = 0.2
"""Mean of the loud samples after leveling."""

Sound = Float64[ndarray, " samples"]


@dataclass(frozen=True)
class Voice:
    """A reference in the codec's terms.

    Attributes
    ----------
    codes
        Semantic codes, 50 a second.
    tokens
        Global tokens.
    """

    codes: Int[Tensor, " codes"]
    tokens: Int[Tensor, " tokens"]


def leveled(sound: Sound) -> Sound:
    """Bring the loud samples of a recording to the level ``LEVEL``, without clipping.

    Loud: between the 90th and the 99th percentile of those above 0.01. The gain is between 0.1 and 10.
    """
    sizes = np.sort(np.abs(sound))  # of the recording before the lift: the published prompts were made so
    if sizes[-1] < 0.1:
        sound = sound / max(sizes[-1], 1e-3) * 0.1
    loud = sizes[sizes > 0.01]
    if len(loud) <= 10:
        return sound
    sound = sound * np.clip(LEVEL / loud[int(0.9 * len(loud)) : int(0.99 * len(loud))].mean(), 0.1, 10)
    return sound / max(1.0, np.abs(sound).max())


def load_wav2vec(folder: Path, device: str | torch.device) -> tuple[Wav2Vec2FeatureExtractor, Wav2Vec2Model]:
    """Return the feature extractor and the layers of wav2vec 2.0 that are read, in fp32."""
    model: Any = Wav2Vec2Model.from_pretrained(folder, dtype=torch.float32)
    model.encoder.layers = model.encoder.layers[:NEEDED_LAYERS]
    return Wav2Vec2FeatureExtractor.from_pretrained(folder), model.eval().to(device)


class ReferenceReader:
    """From a recording to a :class:`Voice`.

    Parameters
    ----------
    codec
        BiCodec.
    mel
        Mel spectrum that its speaker encoder takes.
    extractor, wav2vec
        As :func:`load_wav2vec` returns them.
    settings
        Of the folder's ``config.yaml``: ``sample_rate``, ``ref_segment_duration``, ``latent_hop_length``,
        ``volume_normalize``.
    """

    def __init__(
        self,
        codec: BiCodec,
        mel: MelSpectrogram,
        extractor: Wav2Vec2FeatureExtractor,
        wav2vec: Wav2Vec2Model,
        settings: Mapping[str, Any],
    ) -> None:
        self.codec, self.mel, self.extractor, self.wav2vec = codec, mel, extractor, wav2vec
        self.sample_rate = int(settings["sample_rate"])
        self.normalizes = bool(settings["volume_normalize"])
        hop = int(settings["latent_hop_length"])
        self.clip_samples = int(self.sample_rate * settings["ref_segment_duration"]) // hop * hop

    def read(self, path: str | Path) -> Sound:
        """Return a recording at the codec's rate, leveled.

        Raises
        ------
        InputError
            See :func:`wandlib.systems.sound_file.read_sound`.
        """
        samples, rate = read_sound(path, MAXIMUM_SECONDS)
        sound = samples[:, 0]
        if rate != self.sample_rate:
            sound = soxr.resample(sound, rate, self.sample_rate, quality="VHQ")
        return leveled(sound) if self.normalizes else sound

    @torch.inference_mode()
    def features(self, sound: Sound) -> Float[Tensor, "1 time features"]:
        """Return what the codec's encoder takes, 50 frames a second."""
        inputs = self.extractor(sound, sampling_rate=self.sample_rate, return_tensors="pt", padding=True).input_values
        hidden = self.wav2vec(inputs.to(self.wav2vec.device), output_hidden_states=True).hidden_states
        total: Tensor = sum(hidden[layer] for layer in LAYERS)
        return total / len(LAYERS)

    @torch.inference_mode()
    def codes(self, sound: Sound) -> Int[Tensor, " codes"]:
        """Return the semantic codes of a recording that :meth:`read` returned."""
        return self.codec.semantic(self.features(sound))[0].cpu()

    @torch.inference_mode()
    def tokens(self, sound: Sound) -> Int[Tensor, " tokens"]:
        """Return the global tokens of a recording that :meth:`read` returned."""
        clip = torch.from_numpy(np.resize(sound, self.clip_samples)).float()[None]
        device = next(self.codec.parameters()).device
        return self.codec.speaker_encoder.encode(self.mel(clip.to(device)))[0].cpu()

    def __call__(self, path: str | Path) -> Voice:
        """Return the voice in a recording; InputError as :meth:`read`."""
        sound = self.read(path)
        return Voice(self.codes(sound), self.tokens(sound))
