"""Measure a stage of a voice on some sentences, the odd texts, and people as references: each a job for a process.

The instruments (Whisper tiny.en, DNSMOS, resemblyzer) are loaded once a process. One that is not installed leaves its
columns out, with the reason in the report.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipes.mini.hearing import recognizer
from recipes.mini.stages import Sound, Stage, speaker_of, system_at
from wandlib.evaluation.failures import failures
from wandlib.evaluation.measurement import evaluate, reference_sounds
from wandlib.evaluation.mos import MosPredictor, Unavailable, mos_predictors
from wandlib.evaluation.recognizers import plain_english
from wandlib.evaluation.report import Report, Utterance
from wandlib.evaluation.speakers import Resemblyzer, similarity
from wandlib.systems.mini.features import SAMPLE_RATE

RULES = 2
"""Raise it when the same speech would be measured otherwise."""
PEOPLE_SENTENCES = (
    "The museum opens at half past nine, and the last tickets are sold at four in the afternoon.",
    "Could you please put the heavy boxes on the shelf behind the kitchen door?",
    "Thirty years ago there was nothing here but a narrow road, a few farms, and a wooden bridge.",
)


class Identity:
    """A speaker encoder that remembers the last vector that it gave."""

    def __init__(self) -> None:
        self.encode, self.last = Resemblyzer(), None

    def __call__(self, waveform: Sound, sample_rate: int) -> Sound:
        vector = self.encode(waveform, sample_rate)
        self.last = vector
        return vector

    last: Sound | None


@functools.cache
def identity() -> Identity | Unavailable:
    """Load the speaker encoder."""
    try:
        return Identity()
    except ImportError as error:
        return Unavailable(f"{error.name} is missing: pip install 'wandlib[eval]'")


@functools.cache
def scores() -> dict[str, MosPredictor | Unavailable]:
    """Load DNSMOS."""
    return mos_predictors(["dnsmos"])


def instruments() -> str:
    """Name the instruments that are here, and the rules of measuring: what was measured by others is measured anew."""
    there = [
        name
        for name, one in ({"whisper": recognizer(), "identity": identity()} | scores()).items()
        if not isinstance(one, Unavailable)
    ]
    return "-".join([*there, str(RULES)])


@functools.cache
def known_voices(assets: Path | None) -> tuple[dict[str, Sound], dict[str, Sound]]:
    """(sound, vector) of each built-in speaker's reference; no vectors without an encoder."""
    system, encode = system_at(assets, True), identity()
    sounds = reference_sounds(system, system.speakers)
    if isinstance(encode, Unavailable):
        return sounds, {}
    return sounds, {name: encode(sound, SAMPLE_RATE) for name, sound in sounds.items()}


def measure(assets: Path | None, stage: Stage, texts: list[str]) -> Report:
    """Measure every text by every speaker at one stage; the condition has the stage's name."""
    torch.set_num_threads(1)
    system, encode = speaker_of(assets, stage), identity()
    if isinstance(system, Unavailable):
        return Report({}, [], {stage.name: system.reason})
    sounds, vectors = known_voices(assets)

    def note_margin(row: Utterance) -> None:
        # How much nearer to its own reference than to that of any other speaker.
        if row.similarity is not None and len(vectors) > 1 and not isinstance(encode, Unavailable):
            others = [
                0.0 if encode.last is None else similarity(encode.last, vector)
                for name, vector in vectors.items()
                if name != row.speaker
            ]
            row.scores["margin"] = row.similarity - max(others)
            encode.last = None

    made = evaluate(
        system,
        texts,
        attentions=(stage.attention,),
        seeds=(0,),
        temperature=stage.temperature,
        recognizer=recognizer(),
        encoder=encode,
        mos=scores(),
        references=sounds,
        on_utterance=note_margin,
    )
    made.utterances = [replace(row, condition=stage.name) for row in made.utterances]
    made.instruments.pop("system")
    if not isinstance(encode, Unavailable):
        made.instruments["speaker encoder"] = "Resemblyzer"
    return made


def judge(assets: Path | None, texts: list[tuple[int, str]]) -> list[dict[str, Any]]:
    """List what goes wrong with odd texts, by the rules of wandlib.evaluation.failures: a row for each failure."""
    torch.set_num_threads(1)
    system, listen, found = system_at(assets, True), recognizer(), []
    for number, text in texts:
        speaker, symbols = system.speakers[number % len(system.speakers)], system.count_symbols(text)
        for name, attention in (("teacher", "full"), ("student", "window")):
            speech = system.synthesize(text, speaker, attention, seed=number)  # type: ignore[arg-type]
            heard = None if isinstance(listen, Unavailable) else listen(speech.waveform, SAMPLE_RATE)
            kinds = failures(speech, system.codes_per_second, symbols, heard, normalize=plain_english)
            if kinds:
                parts = list(zip(symbols, speech.trace.parts, strict=True))
                row = {"model": name, "kind": ", ".join(kinds), "text": text, "speaker": speaker}
                found.append(row | {"symbols and codes": parts})
    return found


def imitate(assets: Path | None, recording: Path) -> dict[str, Any]:
    """Measure whether speech after a person's recording is nearer to it than to every built-in speaker."""
    import soundfile

    torch.set_num_threads(1)
    system, encode = system_at(assets, True), identity()
    if isinstance(encode, Unavailable):
        raise TypeError(encode.reason)
    _, vectors = known_voices(assets)
    samples, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    person = encode(samples.mean(axis=1), rate)
    row: dict[str, Any] = {"recording": recording.name}
    for name, attention in (("teacher", "full"), ("student", "window")):
        made = [system.synthesize(text, recording, attention).waveform for text in PEOPLE_SENTENCES]  # type: ignore[arg-type]
        mine = np.mean([encode(sound, SAMPLE_RATE) for sound in made if len(sound) > SAMPLE_RATE // 10], axis=0)
        closest = max(vectors, key=lambda speaker: similarity(mine, vectors[speaker]))
        row |= {
            name: similarity(mine, person),
            f"{name}, closest speaker": similarity(mine, vectors[closest]),
            f"{name}, who": closest,
        }
    return row
