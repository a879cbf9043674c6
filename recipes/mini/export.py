"""From checkpoints to ``assets/mini``: safetensors in 16 bits, configurations, built-in speakers, cards and notice.

What teacher and student learned from goes beside the recipe (:mod:`recipes.mini.spoken`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

import wandlib
from recipes.mini import cards, spoken
from recipes.mini.corpus import Utterance, read_shards
from recipes.mini.encode import load_codec
from recipes.mini.speakers import SPEAKERS
from recipes.mini.train_student import Variant, load_student, load_teacher, window_of
from recipes.mini.train_vocoder import load_vocoder
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.reference import clean_reference
from wandlib.systems.mini.system import ASSETS, MiniSystem, save_voices

CONTRAST = 1.25
"""Where :mod:`recipes.mini.tune` has chosen none."""
MEGABYTES = {"a file": 25.0, "together": 60.0}
"""What may be shipped."""


def choices(folder: Path) -> dict[str, object]:
    """Return what :mod:`recipes.mini.tune` has written under ``folder``; nothing where it was not run."""
    path = folder / "choices.json"
    found: dict[str, object] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def system_of(folder: Path, corpus: Path) -> MiniSystem:
    """Put the voice together from checkpoints."""
    codec = load_codec(folder)
    contrast = choices(folder).get("contrast", CONTRAST)
    assert isinstance(contrast, float)
    codec.config["contrast"] = codec.contrast = contrast
    student = load_student(folder) if (folder / "student" / "model.safetensors").exists() else None
    rule = window_of(Variant())
    system = MiniSystem(codec, load_vocoder(folder), load_teacher(folder), {}, student, rule["window"], rule["blocks"])
    for name, said in references(read_shards(corpus), choices(folder)).items():
        system.voices[name] = system.voice_of(clean_reference(said.samples, SAMPLE_RATE))
    return system


def run(folder: Path, corpus: Path, target: Path = ASSETS) -> None:
    """Write ``codec``, ``teacher`` and ``student`` under ``target``, their cards, and the notice.

    Raises
    ------
    ValueError
        Where a file, or all together, is larger than may be shipped.
    """
    system = system_of(folder, corpus)
    codec, vocoder = system.codec, system.vocoder
    weights = {f"codec.{name}": value.detach() for name, value in codec.named_parameters()}
    weights |= {f"vocoder.{name}": value.detach() for name, value in vocoder.named_parameters()}
    (target / "codec").mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.to(torch.bfloat16) for name, value in weights.items()}, target / "codec" / "model.safetensors"
    )
    known = {speaker.name: speaker.voice for speaker in SPEAKERS}
    sources = {name: known[name] for name in system.voices if name in known}
    config = {"codec": codec.config, "vocoder": vocoder.config, "speakers": list(system.voices)}
    if sources:
        config["kokoro"] = sources  # the voice of Kokoro that each speaker learned from, for recipes.mini.evaluate
    (target / "codec" / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_voices(target / "codec" / "speakers.safetensors", system.voices)

    student = wandlib.convert(load_student(folder), **window_of(Variant()))
    for name, model in (("teacher", load_teacher(folder)), ("student", student)):
        model.to(torch.bfloat16).save_pretrained(target / name)
        (target / name / "generation_config.json").unlink(missing_ok=True)
    cards.write(folder, corpus, target)
    check_sizes(target)
    if target == ASSETS:
        shutil.copyfile(corpus / spoken.NAME, spoken.SHIPPED)


def check_sizes(target: Path) -> None:
    """Raise ValueError where the voice is too large to be shipped."""
    sizes = {path: path.stat().st_size / 1e6 for path in target.rglob("*") if path.is_file()}
    largest = max(sizes, key=sizes.__getitem__)
    if sizes[largest] > MEGABYTES["a file"] or sum(sizes.values()) > MEGABYTES["together"]:
        raise ValueError(
            f"{largest} has {sizes[largest]:.1f} MB and all files {sum(sizes.values()):.1f}: at most "
            f"{MEGABYTES['a file']:.0f} and {MEGABYTES['together']:.0f} are shipped; make the teacher smaller"
        )


def references(utterances: list[Utterance], chosen: dict[str, object], most: int = 8) -> dict[str, Utterance]:
    """Choose an utterance of each of ``most`` speakers; the recipe's own in their order.

    The one whose text ``chosen["references"]`` has for the speaker, if there is one, else the first.

    Raises
    ------
    ValueError
        Where there is none.
    """
    wanted = chosen.get("references", {})
    assert isinstance(wanted, dict)
    found: dict[str, Utterance] = {}
    for utterance in utterances:
        if may_be_reference(utterance):
            if utterance.text == wanted.get(utterance.speaker):
                found[utterance.speaker] = utterance
            found.setdefault(utterance.speaker, utterance)
    if not found:
        raise ValueError("no utterance of 4 to 8 seconds at a usual speaking rate to serve as a speaker's reference")
    order = [speaker.name for speaker in SPEAKERS if speaker.name in found]
    return {name: found[name] for name in (order or list(found))[:most]}


def may_be_reference(utterance: Utterance) -> bool:
    """Tell whether a built-in speaker's voice and speaking rate may be read from an utterance."""
    return utterance.has_sound and 4 <= utterance.seconds <= 8 and 0.9 <= utterance.speed <= 1.0
