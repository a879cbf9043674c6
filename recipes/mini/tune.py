"""Choose what is set after training, on held-out sentences of the corpus (not Harvard): ``folder/choices.json``.

``contrast`` sharpens the spectra that the codec's decoder smooths. The utterance that a built-in speaker's voice is
read from, one of the whole corpus, is chosen in two rounds, by how well the teacher is understood with it and how it
sounds; the second round is of other sentences: the best of many by a few sentences is partly the luckiest. How the
teacher does at other temperatures is noted; what is used by default is a constant of the library.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from recipes.mini import analysis
from recipes.mini import corpus as shards
from recipes.mini.corpus import Utterance
from recipes.mini.export import CONTRAST, may_be_reference, system_of
from recipes.mini.hearing import recognizer
from recipes.mini.listening import scores
from wandlib.evaluation.error_rates import error_rates
from wandlib.evaluation.mos import Unavailable
from wandlib.evaluation.recognizers import FasterWhisper
from wandlib.systems.mini.features import SAMPLE_RATE
from wandlib.systems.mini.reference import clean_reference
from wandlib.systems.mini.system import MiniSystem

CONTRASTS = (1.0, 1.25, 1.5)
TEMPERATURES = (0.0, 0.2, 0.35, 0.5)
SENTENCES = 32
CANDIDATES, FINALISTS = 8, 3
"""Utterances of each speaker that might be the reference, and how many of them are heard a second time."""
FIRST, SECOND = slice(0, 8), slice(8, 32)
"""Sentences of the two rounds."""
MOS_WEIGHT = 0.1
"""What a point of DNSMOS is worth in error rate."""


def sentences_of(items: list[analysis.Analyzed], count: int) -> list[analysis.Analyzed]:
    """Held-out utterances of the corpus to tune on."""
    usual = [item for item in items if 5 <= len(item.utterance.text.split()) <= 14 and item.utterance.seconds > 2]
    return usual[:count]


class Tuning:
    """The voice, the recognizer, and the sentences."""

    def __init__(self, system: MiniSystem, recognize: FasterWhisper, items: list[analysis.Analyzed]) -> None:
        self.system, self.recognize = system, recognize
        self.chosen = sentences_of(items, SENTENCES)

    def error(self, texts: list[str], sounds: list[np.ndarray]) -> float:
        """Word and character error rate together, as few words say little of words, less what DNSMOS gives for it."""
        found = error_rates(texts, [self.recognize(sound, SAMPLE_RATE) for sound in sounds], self.recognize.normalize)
        error, predictor = found.wer + found.cer, scores()["dnsmos"]
        if isinstance(predictor, Unavailable):
            return error
        return error - MOS_WEIGHT * float(np.mean([predictor(sound, SAMPLE_RATE)["DNSMOS"] for sound in sounds]))

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

    def references(self, utterances: list[Utterance]) -> dict[str, str]:
        """Text of the utterance chosen for each speaker."""
        candidates: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in utterances:
            if utterance.speaker in self.system.voices and may_be_reference(utterance):
                candidates[utterance.speaker].append(utterance)
        return {
            name: self.reference(said[:CANDIDATES]).text for name, said in tqdm(candidates.items(), desc="references")
        }


@torch.inference_mode()
def run(folder: Path, corpus: Path) -> None:
    """Write ``folder/choices.json``; one that is there is kept."""
    path = folder / "choices.json"
    if path.exists():
        return
    recognize = recognizer()
    if isinstance(recognize, Unavailable):
        typer.echo(
            f"nothing is chosen, contrast {CONTRAST} and each speaker's first utterance stay: {recognize.reason}"
        )
        return
    torch.set_num_threads(1)
    items = analysis.read(corpus)
    tuning = Tuning(system_of(folder, corpus), recognize, items[: shards.HELD_OUT])
    found: dict[str, Any] = {"contrasts": {value: tuning.contrast(value) for value in CONTRASTS}}
    found["contrast"] = min(found["contrasts"], key=found["contrasts"].__getitem__)
    tuning.system.codec.contrast = found["contrast"]
    found["references"] = tuning.references([item.utterance for item in items])
    found["temperatures"] = {value: tuning.temperature(value) for value in TEMPERATURES}
    typer.echo(json.dumps(found, indent=1))
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1), encoding="utf-8")
    partial.replace(path)
