"""A speech system measured: every sentence by every speaker, with full attention and under the window, as one table.

report = evaluate(load_system("mini"), SENTENCES)
print(report.markdown())
report.interval("WER", "window 32").value in report.interval("WER", "full")     # within full attention's interval?
report.difference("WER", "window 32", "full")                                  # paired, with its own
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import product
from typing import Any

from wandlib.evaluation import error_rates
from wandlib.evaluation.error_rates import count_errors
from wandlib.evaluation.failures import Pace, failures
from wandlib.evaluation.mos import MosPredictor, Unavailable
from wandlib.evaluation.recognizers import Recognizer, default_recognizer
from wandlib.evaluation.report import Report, Utterance
from wandlib.evaluation.speakers import Resemblyzer, SpeakerEncoder, similarity
from wandlib.evaluation.voices import OWN_VOICE, Sound, Speakers, check_speakable, reference_sounds, voices_of
from wandlib.systems.base import Attention, Speech, SpeechSystem

SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
)
"""The first list of the IEEE Harvard sentences (1969), which the embedded voice never trained on."""
SHORTEST_SOUND = 0.1
"""Seconds. In a shorter sound there are no words, no similarity (it counts as 0) and no score."""


class _Measurement:
    """What listens to an utterance; the same sound is listened to once."""

    def __init__(
        self,
        system: SpeechSystem,
        recognizer: Recognizer | Unavailable,
        encoder: SpeakerEncoder | Unavailable,
        mos: Mapping[str, MosPredictor | Unavailable],
        references: Mapping[str, Sound],
        normalize: Callable[[str], str],
        pace: Pace | None,
    ) -> None:
        self.system, self.recognizer, self.normalize, self.pace = system, recognizer, normalize, pace
        self.encoder = encoder
        self.mos = [predictor for predictor in mos.values() if not isinstance(predictor, Unavailable)]
        self.identities = (
            {}
            if isinstance(encoder, Unavailable)
            else {speaker: encoder(sound, system.sample_rate) for speaker, sound in references.items()}
        )
        # A greedy system says the same with every seed.
        self._known: dict[tuple[str, str, bytes], dict[str, Any]] = {}

    def __call__(self, condition: str, speaker: str, seed: int, speech: Speech) -> Utterance:
        key = (speech.text, speaker, hashlib.sha256(speech.waveform.tobytes()).digest())
        if key not in self._known:
            self._known[key] = self._listen(speaker, speech)
        return Utterance(
            condition=condition,
            text=speech.text,
            speaker=speaker,
            seed=seed,
            seconds=speech.seconds,
            median_ms=speech.trace.median_milliseconds,
            cache_bytes=speech.trace.cache_bytes[-1] if speech.trace.steps else 0,
            real_time_factor=speech.real_time_factor if len(speech.waveform) else 0.0,
            **self._known[key],
        )

    def _listen(self, speaker: str, speech: Speech) -> dict[str, Any]:
        sound, rate = speech.waveform, speech.sample_rate
        audible = speech.seconds >= SHORTEST_SOUND
        symbols = self.system.count_symbols(speech.text)
        if symbols is not None and len(symbols) != len(speech.trace.parts):
            symbols = None  # a setting cuts the text into other parts than these
        heard: str | None = None
        if not isinstance(self.recognizer, Unavailable):
            heard = self.recognizer(sound, rate) if audible else ""
        alike: float | None = None
        if not isinstance(self.encoder, Unavailable) and speaker in self.identities:
            alike = similarity(self.encoder(sound, rate), self.identities[speaker]) if audible else 0.0
        return {
            "heard": heard,
            "errors": None if heard is None else count_errors(speech.text, heard, self.normalize),
            "similarity": alike,
            "scores": {k: v for predict in self.mos for k, v in predict(sound, rate).items()} if audible else {},
            "failures": failures(
                speech,
                self.system.codes_per_second,
                symbols,
                heard,
                pace=self.pace,
                normalize=self.normalize,
            ),
        }


def instrument(given: Any) -> str:
    """How a report names a recognizer or encoder: its class, and its model where it tells."""
    if isinstance(given, Unavailable):
        return "none"
    model = getattr(given, "name", "")
    return type(given).__name__ + (f" {model}" if model else "")


def evaluate(
    system: SpeechSystem,
    texts: Sequence[str] = SENTENCES,
    *,
    speakers: Speakers = None,
    attentions: Sequence[Attention] = ("full", "window"),
    window: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    temperature: float | None = None,
    top_k: int | None = None,
    recognizer: Recognizer | Unavailable | None = None,
    encoder: SpeakerEncoder | Unavailable | None = None,
    mos: Mapping[str, MosPredictor | Unavailable] | None = None,
    references: Mapping[str, Sound] | None = None,
    normalize: Callable[[str], str] | None = None,
    pace: Pace | None = None,
    name: str = "",
    report: Report | None = None,
    on_utterance: Callable[[Utterance], None] | None = None,
    **options: Any,
) -> Report:
    """Speak every text and let the instruments listen.

    Parameters
    ----------
    system
        What speaks.
    texts
        Sentences; 20 or more for an interval worth having.
    speakers
        Built-in speakers or audio files; in a mapping each has options of its own, such as a recording its transcript:
        ``{"voice.wav": {"transcript": "What it says."}}``. None: all built-in ones; in it, or where there is none: the
        system's own choice, which a report calls :data:`~wandlib.evaluation.voices.OWN_VOICE`.
    attentions, window, temperature, top_k
        As in :meth:`SpeechSystem.synthesize`; each attention is a condition.
    seeds
        Of the sampling. A system that decodes greedily says the same with each, and is listened to once.
    recognizer
        None: Whisper tiny.en, see :class:`wandlib.evaluation.recognizers.FasterWhisper`. An :class:`Unavailable`, or a
        package that is not installed, leaves the error rates out.
    encoder
        None: :class:`wandlib.evaluation.speakers.Resemblyzer`; an :class:`Unavailable` leaves the similarity out.
    mos
        By name, see :func:`wandlib.evaluation.mos.mos_predictors`; None: none.
    references
        What each speaker sounds like, shape [samples] at the system's rate; None: :func:`reference_sounds`.
    normalize
        For both sides of the error rates, see :func:`wandlib.evaluation.error_rates.count_errors`; None: the
        recognizer's own, or letters and apostrophes alone.
    pace
        Of natural speech, see :func:`wandlib.evaluation.failures.failures`.
    name
        Goes before the conditions, so that reports of several systems can be added.
    report
        An empty one to fill: what was measured stays in it where this raises, or is interrupted. None: a new one.
    on_utterance
        Called after each.
    options
        What else :meth:`SpeechSystem.synthesize` takes, for every speaker.

    Raises
    ------
    ValueError
        When there is nothing to speak, or a text has no words.
    InputError
        When the system cannot speak a text, has no such speaker, or does not take an option: before anything is spoken.
    """
    voices = voices_of(system, speakers, window=window, temperature=temperature, top_k=top_k, **options)
    report = Report({}) if report is None else report
    if report.utterances:
        raise ValueError("the report holds utterances already: give an empty one, and add the two")
    several = {"texts": texts, "speakers": speakers or voices, "attentions": attentions, "seeds": seeds}
    for what, given in several.items():
        if isinstance(given, str) or not isinstance(given, Collection):
            raise ValueError(f"{what} must be a list; got {given!r}")
        if not given:
            raise ValueError(f"nothing to evaluate: {what} is empty")
        if len(set(given)) < len(given):
            raise ValueError(f"{what} hold the same twice: {list(given)}")
    for text in texts:  # better before than after an hour
        check_speakable(system, text, voices, attentions, seeds)
    recognizer = default_recognizer() if recognizer is None else recognizer
    normalize = getattr(recognizer, "normalize", error_rates.normalize) if normalize is None else normalize
    for text in texts:
        count_errors(text, text, normalize)
    references = reference_sounds(system, voices) if references is None else references
    encoder = Resemblyzer() if encoder is None else encoder
    mos = {} if mos is None else mos
    listen = _Measurement(system, recognizer, encoder, mos, references, normalize, pace)
    report.instruments["system"] = system.name
    report.instruments |= {"recognizer": instrument(recognizer), "speaker encoder": instrument(encoder)}
    report.unavailable |= {n: predictor.reason for n, predictor in mos.items() if isinstance(predictor, Unavailable)}
    if isinstance(recognizer, Unavailable):
        report.unavailable["WER and CER"] = recognizer.reason
    unknown = [speaker or OWN_VOICE for speaker in voices if speaker not in references]
    if isinstance(encoder, Unavailable):
        report.unavailable["similarity"] = encoder.reason
    elif unknown:
        report.unavailable[f"similarity of {', '.join(unknown)}"] = "no reference sound: pass references"
    for text, speaker, seed, attention in product(texts, voices, seeds, attentions):
        width = f"window {voices[speaker]['window'] or system.window}" if attention == "window" else "full"
        condition = ", ".join(filter(None, (name, width)))
        speech = system.synthesize(text, speaker, attention, seed=seed, **voices[speaker])
        report.utterances.append(listen(condition, speaker or OWN_VOICE, seed, speech))
        if on_utterance is not None:
            on_utterance(report.utterances[-1])
    return report
