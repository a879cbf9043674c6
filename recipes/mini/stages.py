"""What is measured of a voice folder: the source's speech, what codec and vocoder leave of it, and the models' own.

    source     Kokoro itself
    mel        its mel spectrum and pitch through the vocoder
    codec      its codes through decoder and vocoder
    teacher    the language model's own codes under full attention
    untrained  the same weights under the window
    student    the weights that were trained for it

Each is a :class:`~wandlib.systems.base.SpeechSystem`, so that one evaluation serves all. Which voice of Kokoro a
speaker learned from is in the folder's ``codec/config.json``; a folder that does not tell has no first three stages.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from recipes.mini import kokoro
from recipes.mini.analysis import pitch_of
from recipes.mini.corpus import prepare
from recipes.mini.train_vocoder import acoustics_of
from wandlib.evaluation.mos import Unavailable
from wandlib.systems.base import Attention, SpeechSystem
from wandlib.systems.decoding import Utterance
from wandlib.systems.mini.features import SAMPLE_RATE, LogMel
from wandlib.systems.mini.system import ASSETS, TEMPERATURE, MiniSystem
from wandlib.systems.settings import Settings
from wandlib.systems.speech import Speech, Trace

Sound = NDArray[np.float32]
SAMPLED = TEMPERATURE or 0.35
"""The temperature that is measured beside greedy decoding: the default one, or .35 where that is greedy."""
SOURCES = ("source", "mel", "codec")


@dataclass(frozen=True)
class Stage:
    """What speaks, and how."""

    name: str
    attention: Attention = "full"
    student: bool = True
    temperature: float | None = None
    """None: a stage of the source."""


def stages_of(assets: Path | None) -> list[Stage]:
    """Name the stages of a voice folder; None: the shipped one."""
    system = MiniSystem.load(assets)
    found = [Stage(name) for name in SOURCES] if voices_of(assets) else []
    for temperature, how in ((0.0, ""), (SAMPLED, ", sampled")):
        found += [
            Stage(f"teacher{how}", "full", True, temperature),
            Stage(f"untrained, W = {system.window}{how}", "window", False, temperature),
            Stage(f"student, W = {system.window}{how}", "window", True, temperature),
        ]
    return found


def voices_of(assets: Path | None) -> dict[str, str]:
    """Return the voice of Kokoro that each speaker learned from; empty where the folder does not tell."""
    config = json.loads(((assets or ASSETS) / "codec" / "config.json").read_text(encoding="utf-8"))
    return dict(config.get("kokoro", {}))


@functools.cache
def source() -> kokoro.Kokoro | Unavailable:
    """Kokoro, loaded once a process, or the reason why it cannot be had."""
    try:
        return kokoro.Kokoro()
    except (ImportError, FileNotFoundError) as error:
        return Unavailable(str(error))


class FromSource(SpeechSystem):
    """The source's speech of a text, as one of :data:`SOURCES` gives it back.

    Parameters
    ----------
    system
        The voice.
    stage
        One of :data:`SOURCES`.
    speak
        (text, speaker) to sound at the voice's rate.
    """

    def __init__(self, system: MiniSystem, stage: str, speak: Callable[[str, str], Sound]) -> None:
        self.system, self.stage, self.speak = system, stage, speak
        self.name, self.window = stage, system.window
        self.sample_rate, self.codes_per_second = system.sample_rate, system.codes_per_second
        self.log_mel = LogMel()

    @property
    def speakers(self) -> list[str]:
        return self.system.speakers

    def utterances(
        self, texts: Iterator[str], reference: str | Path | None, settings: Settings, *, streaming: bool
    ) -> Iterator[Utterance]:
        """Yield nothing: the source has no codes to decode, and may be asked whether it takes a text."""
        return iter(())

    def reference_waveform(self, speaker: str) -> Sound | None:
        return self.system.reference_waveform(speaker)

    @torch.inference_mode()
    def synthesize(self, text: Any, reference: Any = None, *_: Any, **__: Any) -> Speech:
        """Speak the text by the source, and pass it on as far as the stage goes."""
        sound = self.speak(text, reference)
        mel, voice = self.log_mel(torch.from_numpy(sound)[None]), self.system.voices[reference]
        codes = self.system.codec.encode(mel, voice.vector)[0].numpy()
        if self.stage == "mel":
            sound = self.system.vocoder(acoustics_of(mel, torch.from_numpy(pitch_of(sound))[None]))[0].numpy()
        elif self.stage == "codec":
            sound = self.system.decode(codes, voice)
        return Speech(sound, SAMPLE_RATE, codes, Trace("full", None, 0, parts=[len(codes)]), text)


@functools.cache
def system_at(assets: Path | None, student: bool) -> MiniSystem:
    """Load the voice once a process."""
    return MiniSystem.load(assets, student=student)


def speaker_of(assets: Path | None, stage: Stage) -> SpeechSystem | Unavailable:
    """Return what speaks at a stage, or why it cannot."""
    system = system_at(assets, stage.student)
    if stage.name not in SOURCES:
        return system
    made, voices = source(), voices_of(assets)
    if isinstance(made, Unavailable):
        return made
    synthesizer = made

    def speak(text: str, name: str) -> Sound:
        sound = soxr.resample(synthesizer.speak(text, voices[name]), kokoro.SAMPLE_RATE, SAMPLE_RATE)
        return prepare(sound).astype(np.float32) / 32768

    return FromSource(system, stage.name, speak)
