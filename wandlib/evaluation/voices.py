"""Who speaks in an evaluation: the settings of every voice, how it is to sound, and whether it can speak a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from wandlib.evaluation.audio import at_rate
from wandlib.systems.base import Attention, InputError, SpeechSystem

Sound = NDArray[np.float32]
Speakers = Sequence[str | None] | Mapping[str, Mapping[str, Any]] | None
Voices = dict[str | None, dict[str, Any]]
"""Settings of each speaker or audio file, as :meth:`SpeechSystem.synthesize` takes them."""

OWN_VOICE = "own voice"
"""The speaker in a report where a system was given none."""


def voices_of(system: SpeechSystem, speakers: Speakers, **shared: Any) -> Voices:
    """Return ``shared`` settings and its own for every speaker; see :func:`wandlib.evaluation.measurement.evaluate`."""
    names: Iterable[str | None] = (system.speakers or (None,)) if speakers is None else speakers
    own: Mapping[Any, Mapping[str, Any]] = speakers if isinstance(speakers, Mapping) else {}
    return {name: shared | dict(own.get(name, {})) for name in names}


def check_speakable(
    system: SpeechSystem,
    text: str,
    voices: Voices,
    attentions: Sequence[Attention] = ("full", "window"),
    seeds: Sequence[int] = (0,),
) -> None:
    """Make the prompts of ``text`` by every voice, and decode nothing.

    Raises
    ------
    InputError
        If the system cannot speak so.
    """
    for speaker, settings in voices.items():
        try:
            for attention, seed in product(attentions, seeds):  # this checks them; a stream has not begun
                system.stream(text, speaker, attention, seed=seed, **settings)
            checked = system.settings_type.make(settings)
            for _ in system.utterances(iter([text]), speaker, checked, streaming=False):
                pass
        except InputError as error:
            by = "" if speaker is None else f" by {speaker}"
            raise InputError(f"{text[:40]!r} cannot be spoken{by}: {error}") from error


def reference_sounds(system: SpeechSystem, speakers: Iterable[str | None]) -> dict[str, Sound]:
    """Return the voice that each speaker is to have, at the system's rate: an audio file, or what the system knows.

    Speakers whose reference is not known are left out.

    Raises
    ------
    InputError
        For a file that cannot be read, or holds NaN or infinity.
    """
    found = {}
    for speaker in speakers:
        if speaker is None:
            continue
        if speaker in system.speakers:
            known = system.reference_waveform(speaker)
            if known is not None:
                found[speaker] = known
        else:
            try:
                samples, rate = soundfile.read(speaker, dtype="float32", always_2d=True)
                found[speaker] = at_rate(samples.mean(axis=1), rate, system.sample_rate)
            except (soundfile.LibsndfileError, ValueError) as error:
                raise InputError(f"cannot read the reference {speaker!r}: {error}") from error
    return found
