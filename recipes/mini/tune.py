"""Choose what is set after training, on held-out sentences of the corpus (not Harvard): ``folder/choices.json``.

``contrast`` sharpens the spectra that the codec's decoder smooths. The utterance that a built-in speaker's voice is
read from, one of the whole corpus, is chosen in two rounds, by how well the teacher is understood with it and how it
sounds; the second round is of other sentences: the best of many by a few sentences is partly the luckiest. How the
teacher does at other temperatures is noted; what is used by default is a constant of the library.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from recipes.mini import analysis
from recipes.mini import corpus as shards
from recipes.mini.corpus import Utterance, read_shards
from recipes.mini.export import CONTRAST, choices, may_be_reference, references, system_of
from recipes.mini.files import write_json
from recipes.mini.hearing import QUICK, recognizer
from recipes.mini.listening import scores
from recipes.mini.pool import each
from wandlib.evaluation.error_rates import error_rates
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.recognizers import FasterWhisper
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.reference import clean_reference
from wandlib.systems.mini.system import MiniSystem

CONTRASTS = (1.0, 1.25, 1.5)
TEMPERATURES = (0.0, 0.2, 0.35, 0.5)
SENTENCES = 24
CANDIDATES, FINALISTS = 6, 3
"""Utterances of each speaker that might be the reference, and how many of them are heard a second time."""
FIRST, SECOND = slice(0, 8), slice(8, 24)
"""Sentences of the two rounds."""
MOS_WEIGHT = 0.1
"""What a point of DNSMOS is worth in error rate."""
SCORED_SECONDS = 10
"""DNSMOS hears nine seconds at a time, each second anew: of ten it hears one stretch, where it would hear seven of the
16 to which it repeats a sentence of four."""


def sentences_of(items: list[analysis.Analyzed], count: int) -> list[analysis.Analyzed]:
    """Held-out utterances of the corpus to tune on."""
    usual = [item for item in items if 5 <= len(item.utterance.text.split()) <= 14 and item.utterance.seconds > 2]
    return usual[:count]


class Tuning:
    """The voice, the recognizer, the corpus, and the held-out sentences of it to tune on."""

    def __init__(self, system: MiniSystem, recognize: FasterWhisper, items: list[analysis.Analyzed]) -> None:
        self.system, self.recognize, self.items = system, recognize, items
        self.chosen = sentences_of(items[: shards.HELD_OUT], SENTENCES)

    def error(self, texts: list[str], sounds: list[np.ndarray]) -> float:
        """Word and character error rate together, as few words say little of words, less what DNSMOS gives for it."""
        found = error_rates(texts, [self.recognize(sound, SAMPLE_RATE) for sound in sounds], self.recognize.normalize)
        error, predictor = found.wer + found.cer, scores()["dnsmos"]
        if isinstance(predictor, Unavailable):
            return error
        once = [np.resize(sound, SCORED_SECONDS * SAMPLE_RATE) for sound in sounds]
        return error - MOS_WEIGHT * float(np.mean([predictor(sound, SAMPLE_RATE)["DNSMOS"] for sound in once]))

    def contrast(self, value: float) -> float:
        """Return the error of the codec's round trip at a contrast."""
        codec, before, sounds, texts = self.system.codec, self.system.codec.contrast, [], []
        codec.contrast = value
        for item in self.chosen:
            voice = self.system.voices.get(item.utterance.speaker)
            if voice is not None:
                mel, _ = analysis.batch_of([(item, 0)], item.frames)
                sounds.append(self.system.decode(codec.encode(mel, voice.vector)[0].numpy(), voice))
                texts.append(item.utterance.text)
        codec.contrast = before
        return self.error(texts, sounds)

    def temperature(self, value: float) -> float:
        """Return the error of the teacher at a temperature."""
        texts, names = [item.utterance.text for item in self.chosen], self.system.speakers
        sounds = [
            self.system.synthesize(text, names[number % len(names)], temperature=value, seed=number).waveform
            for number, text in enumerate(texts)
        ]
        return self.error(texts, sounds)

    def reference(self, candidates: list[Utterance]) -> Utterance:
        """Choose the utterance with which the teacher does best."""
        for part, left in ((FIRST, FINALISTS), (SECOND, 1)):
            texts = [item.utterance.text for item in self.chosen[part]]
            if len(candidates) > left and texts:
                candidates = sorted(candidates, key=lambda said: self._with(said, texts))[:left]
        return candidates[0]

    def _with(self, said: Utterance, texts: list[str]) -> float:
        self.system.voices["candidate"] = self.system.voice_of(clean_reference(said.samples, SAMPLE_RATE))
        sounds = [self.system.synthesize(text, "candidate").waveform for text in texts]
        del self.system.voices["candidate"]
        return self.error(texts, sounds)

    def candidates(self, speaker: str) -> list[Utterance]:
        """Return utterances that might be a speaker's reference."""
        said = (item.utterance for item in self.items)
        return [one for one in said if one.speaker == speaker and may_be_reference(one)][:CANDIDATES]


@functools.lru_cache(1)
def prepared(folder: Path, corpus: Path, kind: str) -> Tuning:
    """Load the voice as it has been chosen so far: once a process and kind of choice."""
    listen = recognizer(QUICK)
    assert not isinstance(listen, Unavailable)
    torch.set_num_threads(1)
    return Tuning(system_of(folder, corpus), listen, analysis.read(corpus))


@torch.inference_mode()
def measure(job: tuple[Path, Path, str, str]) -> float | str:
    """Return the error at a contrast or temperature, or the text of the reference that is chosen for a speaker."""
    folder, corpus, kind, name = job
    tuning = prepared(folder, corpus, kind)
    if kind == "references":
        return tuning.reference(tuning.candidates(name)).text
    return tuning.contrast(float(name)) if kind == "contrasts" else tuning.temperature(float(name))


def run(folder: Path, corpus: Path, workers: int = 1) -> None:
    """Write ``folder/choices.json``, choice by choice; those that are there are kept."""
    found: dict[str, Any] = choices(folder)
    if len(found.get("temperatures", ())) == len(TEMPERATURES):  # the last of them
        return
    listen = recognizer()
    if isinstance(listen, Unavailable):
        typer.echo(f"nothing is chosen, contrast {CONTRAST} and each speaker's first utterance stay: {listen.reason}")
        return
    path = folder / "choices.json"
    wanted = {"contrasts": CONTRASTS, "references": references(read_shards(corpus), {}), "temperatures": TEMPERATURES}
    for kind, names in wanted.items():
        values = found.setdefault(kind, {})
        missing = [name for name in map(str, names) if name not in values]
        jobs = [(folder, corpus, kind, name) for name in missing]
        for name, value in zip(missing, each(measure, jobs, workers, kind), strict=True):
            values[name] = value
            write_json(path, found, indent=1)
        if kind == "contrasts":
            found["contrast"] = float(min(values, key=values.__getitem__))
            write_json(path, found, indent=1)
    typer.echo(json.dumps(found, indent=1))
