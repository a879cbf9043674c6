"""From checkpoints to ``assets/mini``: safetensors in 16 bits, configurations, built-in speakers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from recipes.mini import analysis
from recipes.mini.corpus import SPEAKERS
from recipes.mini.encode import load_codec
from recipes.mini.train_teacher import HELD_OUT, build_model
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.reference import clean_reference
from wandlib.systems.mini.system import ASSETS, MiniSystem, save_voices
from wandlib.systems.mini.vocoder import Vocoder

CONTRAST = 1.25
"""Best of 1, 1.25, 1.5, 1.75 and 2 by CER on 50 held-out utterances of the corpus (not the Harvard sentences)."""


def load_vocoder(folder: Path) -> Vocoder:
    """The averaged weights of ``folder/vocoder.pt``."""
    vocoder = Vocoder()
    vocoder.load_state_dict(torch.load(folder / "vocoder.pt", weights_only=True)["average"])
    return vocoder.eval()


def run(folder: Path, corpus: Path, target: Path = ASSETS) -> None:
    """Write ``target/codec`` and ``target/teacher``; model cards are kept as they are."""
    codec, vocoder = load_codec(folder), load_vocoder(folder)
    codec.config["contrast"] = CONTRAST
    weights = {f"codec.{name}": value.detach() for name, value in codec.named_parameters()}
    weights |= {f"vocoder.{name}": value.detach() for name, value in vocoder.named_parameters()}
    (target / "codec").mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.to(torch.bfloat16) for name, value in weights.items()}, target / "codec" / "model.safetensors"
    )
    names = [speaker.name for speaker in SPEAKERS]
    config = {"codec": codec.config, "vocoder": vocoder.config, "speakers": names}
    (target / "codec" / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    teacher = build_model()
    state = torch.load(folder / "teacher.pt", weights_only=True)["average"]
    teacher.load_state_dict(state, strict=False)
    teacher.tie_weights()
    teacher.to(torch.bfloat16).save_pretrained(target / "teacher")
    (target / "teacher" / "generation_config.json").unlink(missing_ok=True)

    # A speaker's reference: the first held-out utterance of 4 to 8 seconds.
    system = MiniSystem(codec, vocoder, build_model(), {})
    voices = {}
    for name in names:
        items = [i.utterance for i in analysis.read(corpus)[:HELD_OUT] if i.utterance.speaker == name]
        chosen = next(utterance for utterance in items if 4 <= utterance.seconds <= 8)
        voices[name] = system.voice_of(clean_reference(chosen.samples, SAMPLE_RATE))
    save_voices(target / "codec" / "speakers.safetensors", voices)
