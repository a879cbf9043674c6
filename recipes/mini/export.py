"""From checkpoints to ``assets/mini``: safetensors in 16 bits, configurations, built-in speakers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import wandlib
from recipes.mini import analysis
from recipes.mini.corpus import Utterance
from recipes.mini.encode import load_codec
from recipes.mini.speakers import SPEAKERS
from recipes.mini.train_student import WINDOW, load_student, load_teacher
from recipes.mini.train_teacher import HELD_OUT_UTTERANCES, build_model
from recipes.mini.train_vocoder import load_vocoder
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.reference import clean_reference
from wandlib.systems.mini.system import ASSETS, MiniSystem, save_voices

CONTRAST = 1.25
"""Chosen with :mod:`recipes.mini.tune`."""
REFERENCES: dict[str, str] = {}
"""Chosen with :mod:`recipes.mini.tune`: by speaker, how the utterance begins that the voice is taken from."""


def run(folder: Path, corpus: Path, target: Path = ASSETS) -> None:
    """Write ``codec``, ``teacher`` and ``student`` under ``target``; model cards are kept as they are."""
    codec, vocoder = load_codec(folder), load_vocoder(folder)
    codec.config["contrast"] = CONTRAST
    weights = {f"codec.{name}": value.detach() for name, value in codec.named_parameters()}
    weights |= {f"vocoder.{name}": value.detach() for name, value in vocoder.named_parameters()}
    (target / "codec").mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.to(torch.bfloat16) for name, value in weights.items()}, target / "codec" / "model.safetensors"
    )
    utterances = [item.utterance for item in analysis.read(corpus)[:HELD_OUT_UTTERANCES]]
    chosen = references(utterances)
    config = {"codec": codec.config, "vocoder": vocoder.config, "speakers": list(chosen)}
    (target / "codec" / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    models = {"teacher": load_teacher(folder), "student": wandlib.convert(load_student(folder), window=WINDOW)}
    for name, model in models.items():
        model.to(torch.bfloat16).save_pretrained(target / name)
        (target / name / "generation_config.json").unlink(missing_ok=True)

    system = MiniSystem(codec, vocoder, build_model(), {})
    voices = {name: system.voice_of(clean_reference(said.samples, SAMPLE_RATE)) for name, said in chosen.items()}
    save_voices(target / "codec" / "speakers.safetensors", voices)


def references(utterances: list[Utterance], most: int = 8) -> dict[str, Utterance]:
    """Choose an utterance of 4 to 8 seconds of each of ``most`` speakers; the recipe's own in their order.

    The one that :data:`REFERENCES` names, if there is one, else the first.

    Raises
    ------
    ValueError
        Where there is none.
    """
    found: dict[str, Utterance] = {}
    for utterance in utterances:
        if 4 <= utterance.seconds <= 8:
            wanted = REFERENCES.get(utterance.speaker)
            if wanted is not None and utterance.text.startswith(wanted):
                found[utterance.speaker] = utterance
            found.setdefault(utterance.speaker, utterance)
    if not found:
        raise ValueError("no held-out utterance of 4 to 8 seconds to serve as a speaker's reference")
    order = [speaker.name for speaker in SPEAKERS if speaker.name in found]
    return {name: found[name] for name in (order or list(found))[:most]}
