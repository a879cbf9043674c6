"""BiCodec and the whole path against the published code on the same random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import soundfile
import spark_parts
import torch
from draws import DrawsOfGenerate
from sinusoids import sinusoid
from torch import Tensor

from wandlib.systems.sparktts import tiny
from wandlib.systems.sparktts.prompt import Control, control_prompt
from wandlib.systems.sparktts.system import SparkSystem

GOLDEN = Path(__file__).with_name("golden.safetensors")

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.filterwarnings("ignore"),  # of the published code
    pytest.mark.parametrize("checkout", ["sparktts"], indirect=True),
]


def published_codec() -> Any:
    from sparktts.models import bicodec as upstream

    settings = spark_parts.SETTINGS
    codec = upstream.BiCodec(
        mel_params=settings["mel_params"],
        encoder=upstream.Encoder(**settings["encoder"]),
        decoder=upstream.WaveGenerator(**settings["decoder"]),
        quantizer=upstream.FactorizedVectorQuantize(**settings["quantizer"], commitment=0.25),
        speaker_encoder=upstream.SpeakerEncoder(**settings["speaker_encoder"]),
        prenet=upstream.Decoder(**settings["prenet"]),
        postnet=upstream.Decoder(
            input_channels=16, vocos_dim=16, vocos_intermediate_dim=32, vocos_num_layers=2, out_channels=24
        ),
    )
    loaded = codec.load_state_dict(spark_parts.published_weights(), strict=False)
    assert not loaded.unexpected_keys
    from wandlib.systems.sparktts.bicodec import TRAINING_ONLY

    assert all(name.startswith(TRAINING_ONLY) for name in loaded.missing_keys), "we lack a weight that is used"
    return codec.eval()


@torch.no_grad()
def published_outputs(codec: Any) -> dict[str, Tensor]:
    mel = codec.mel_transformer(spark_parts.SOUND)
    tokens = spark_parts.TOKENS[:, None]
    voice = codec.speaker_encoder.detokenize(tokens)
    frames = codec.quantizer.detokenize(spark_parts.CODES)
    codes, encoded = codec.tokenize({"feat": spark_parts.FEATURES, "ref_wav": spark_parts.SOUND})
    return {
        "mel": mel,
        "encoder": codec.encoder(spark_parts.FEATURES.transpose(1, 2)),
        "ecapa": codec.speaker_encoder.speaker_encoder(mel.transpose(1, 2), True)[1],
        "codes": codes,
        "global tokens": encoded[:, 0].long(),
        "speaker vector": voice,
        "quantizer": frames,
        "prenet": codec.prenet(frames, voice),
        "sound": codec.detokenize(spark_parts.CODES, tokens)[:, 0],
    }


def test_every_part_of_the_codec(checkout: Path, compare: Any) -> None:
    codec = published_codec()
    theirs = published_outputs(codec)
    for name, ours in spark_parts.outputs(spark_parts.build(codec.state_dict())).items():
        compare(f"Spark-TTS {name}", ours, theirs[name])
    golden.write(GOLDEN, theirs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with the widths that the published classes fix."""
    return tiny.write_checkpoint(tmp_path / "spark", speaker={"channels": 512, "bottleneck": 128, "features": 1536})


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    time = np.arange(2 * 22_050) / 22_050
    sound = 0.04 * np.sin(1300 * time) * np.sin(5 * time) + 0.02 * sinusoid("noise", time.shape).numpy()
    soundfile.write(tmp_path / "voice.wav", np.stack((sound, 0 * sound), axis=1), 22_050)
    return tmp_path / "voice.wav"


def published_system(folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> Any:
    from cli.SparkTTS import SparkTTS

    system = SparkTTS(folder, torch.device("cpu"))
    generate = system.model.generate
    monkeypatch.setattr(system.model, "generate", lambda **kw: generate(**{**kw, "max_new_tokens": limit}))
    return system


@pytest.mark.parametrize("transcript", [None, "hello"])
def test_whole_path_under_full_attention(
    transcript: str | None, checkout: Path, folder: Path, recording: Path, monkeypatch: pytest.MonkeyPatch, compare: Any
) -> None:
    """The same tokens from the same seed, and the same sound."""
    monkeypatch.setattr("wandlib.systems.sparktts.system.MAXIMUM_TOKENS", 120)
    theirs = published_system(folder, monkeypatch, 120)
    monkeypatch.setattr("wandlib.systems.sparktts.system.Sampler", DrawsOfGenerate)
    ours = SparkSystem.load(folder)
    prompt, tokens = theirs.process_prompt("Hi there.", recording, transcript)
    voice = ours.voice(recording)
    assert ours.prompt("Hi there.", voice, transcript, None) == prompt
    compare("Spark-TTS global tokens of a file", voice.tokens, tokens.flatten().long())
    torch.manual_seed(5)
    expected = torch.from_numpy(theirs.inference("Hi there.", recording, transcript))
    speech = ours.synthesize("Hi there.", recording, transcript=transcript, seed=5)
    assert len(speech.codes) > 5
    compare(f"Spark-TTS whole path, transcript {transcript!r}", torch.from_numpy(speech.waveform), expected)


def test_control_prompt(checkout: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = published_system(folder, monkeypatch, 1)
    for gender, pitch, speed in (("female", "very_low", "high"), ("male", "moderate", "very_high")):
        expected = theirs.process_prompt_control(gender, pitch, speed, "Hi.")
        assert control_prompt("Hi.", Control(gender, pitch, speed)) == expected
