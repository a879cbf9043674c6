"""CosyVoice 2 as a :class:`SpeechSystem`: text and a reference in, sound out, under full attention or the window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wandlib import convert
from wandlib.systems.base import SpeechSystem
from wandlib.systems.cosyvoice2.flow import NOISE_FRAMES, Flow
from wandlib.systems.cosyvoice2.hift import HiFT
from wandlib.systems.cosyvoice2.language_model import CosyVoice2LM
from wandlib.systems.cosyvoice2.onnx_models import SpeakerEncoder, SpeechTokenizer
from wandlib.systems.cosyvoice2.reference import FRAMES_PER_CODE
from wandlib.systems.cosyvoice2.sampling import Chooser, LengthRule, RepetitionAware
from wandlib.systems.cosyvoice2.streaming import AcousticStream
from wandlib.systems.cosyvoice2.text import TextFrontend
from wandlib.systems.cosyvoice2.tokenizer import TextTokenizer
from wandlib.systems.cosyvoice2.voice import Voice, VoiceReader
from wandlib.systems.decoding import Utterance
from wandlib.systems.settings import InputError, Settings

MAXIMUM_CHARACTERS = 20_000
LONGEST_PART = 400
"""Text tokens of one part: 20 codes each, the most there are, are 320 s."""
MAXIMUM_CODES = NOISE_FRAMES // FRAMES_PER_CODE
"""Of the reference and one part together: the flow's noise ends there, after 300 s."""


@dataclass(frozen=True)
class CosyVoice2Settings(Settings):
    """How one utterance is generated.

    Attributes
    ----------
    transcript
        What the reference says; None: cross-lingual, its voice without its words.
    instruct
        How to speak, in place of a transcript.
    normalize
        Write numbers out and split the text; False: take it as it is, in one part.

    Raises
    ------
    InputError
        For a temperature or a top_k: its sampling has none.
    """

    transcript: str | None = None
    instruct: str | None = None
    normalize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("temperature", "top_k"):
            if getattr(self, name) is not None:
                raise InputError(f"CosyVoice 2 takes no {name}: its sampling is repetition-aware, as published")


class CosyVoice2System(SpeechSystem):
    """CosyVoice 2.

    Parameters
    ----------
    language_model
        Text to codes, under full attention and, without a student, under the window.
    flow, vocoder
        Codes to sound.
    tokenizer
        Text to tokens.
    speech_tokenizer, speakers_encoder
        A recording to codes, and to a speaker vector.
    student
        A language model trained for the window; None: the language model itself.
    sampling
        How codes are drawn.
    window
        Keys of generated codes that a query sees, unless asked otherwise.
    device
        Where it runs.
    speakers
        Built-in voices, by name; the folder may have some.
    """

    name = "cosyvoice2"
    sample_rate = 24_000
    codes_per_second = 25.0
    settings_type = CosyVoice2Settings

    def __init__(
        self,
        language_model: CosyVoice2LM,
        flow: Flow,
        vocoder: HiFT,
        tokenizer: TextTokenizer,
        speech_tokenizer: SpeechTokenizer,
        speaker_encoder: SpeakerEncoder,
        student: CosyVoice2LM | None = None,
        sampling: RepetitionAware | None = None,
        window: int = 32,
        device: torch.device | str = "cpu",
        speakers: Mapping[str, Voice] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.flow, self.vocoder = flow.to(self.device).eval(), vocoder.to(self.device).eval().fold_norms()
        self.tokenizer, self.frontend = tokenizer, TextFrontend(lambda text: len(tokenizer(text)))
        self.voices = VoiceReader(tokenizer, self.frontend, speech_tokenizer, speaker_encoder, speakers)
        self.window = window
        full = convert(language_model.to(self.device).eval(), window=window)  # type: ignore[arg-type]
        windowed = full if student is None else convert(student.to(self.device).eval(), window=window)  # type: ignore[arg-type]
        self.models = {"full": full, "window": windowed}
        """The language model behind each attention; one object where there is no student."""
        self.sampling, self.lengths = sampling or RepetitionAware(), LengthRule()

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        student: bool | str | Path = True,
        window: int | None = None,
    ) -> CosyVoice2System:
        """Read a published folder.

        Parameters
        ----------
        folder
            ``CosyVoice2-0.5B``, as it is published.
        device
            Where it runs.
        dtype
            Of the language model; None: as published, float32. Flow and vocoder are float32 always.
        student
            A folder with a language model that was trained for the window (``wandlib train``). True: the one in
            ``student/`` under ``folder``, if there is one. False: none.
        window
            In keys; None: the student's, or 32.

        Raises
        ------
        FileNotFoundError
            Naming the first file that is missing, and what brings it.
        InputError
            If the folder is another system's, or a file does not fit.
        """
        from wandlib.systems.cosyvoice2.loading import load_system

        return load_system(folder, student=student, device=device, dtype=dtype, window=window)

    @property
    def speakers(self) -> list[str]:
        return list(self.voices.speakers)

    @property
    def language_model(self) -> CosyVoice2LM:
        """The teacher: an ordinary causal model over :class:`CosyVoice2Config`'s ids, with the window applied to it."""
        return self.models["full"]

    def voice(self, reference: str | Path | None, transcript: str | None = None, instruct: str | None = None) -> Voice:
        """Return a voice to speak in; see :class:`~wandlib.systems.cosyvoice2.voice.VoiceReader`."""
        voice = self.voices(reference, transcript, instruct)
        return replace(voice, reference=voice.reference.to(self.device))

    def parts(self, text: str, *, normalize: bool = True) -> list[list[int]]:
        """Return the text tokens of each part of ``text``.

        Raises
        ------
        InputError
            If the text is too long or has nothing to pronounce.
        """
        if len(text) > MAXIMUM_CHARACTERS:
            raise InputError(f"the text has {len(text):,} characters, the limit is {MAXIMUM_CHARACTERS:,}: split it")
        parts = [self.tokenizer(part) for part in self.frontend(text, normalize=normalize)]
        longest = max(len(part) for part in parts)
        if longest > LONGEST_PART:
            raise InputError(
                f"a part of the text has {longest} tokens, the limit is {LONGEST_PART}: end its sentences with full "
                "stops, and leave out <| and |>, which keep a text in one part"
            )
        return parts

    def count_symbols(self, text: str) -> list[int]:
        """Text tokens in each part of ``text``: speech has 2 to 20 codes for each."""
        return [len(part) for part in self.parts(text)]

    def utterances(
        self, texts: Iterator[str], reference: str | Path | None, settings: Settings, *, streaming: bool
    ) -> Iterator[Utterance]:
        given = settings if isinstance(settings, CosyVoice2Settings) else CosyVoice2Settings()
        draws, noise = seeded(settings.seed), seeded(settings.seed)
        model: Any = self.models[settings.attention]
        config, voice = model.config, None
        for text in texts:
            for part in self.parts(text, normalize=given.normalize):
                voice = voice or self.voice(reference, given.transcript, given.instruct)
                heard = voice.reference.codes if voice.heard else None
                minimum = self.lengths.minimum(len(part))
                yield Utterance(
                    model=model,
                    prompt=torch.tensor([config.prompt(voice.prompt_text + part, heard)], device=self.device),
                    # As published, also for version 3, whose end token is another.
                    choose=Chooser(self.sampling, minimum, config.codes, draws),
                    ends=frozenset(config.stop_ids),
                    limit=min(self.lengths.maximum(len(part)), MAXIMUM_CODES - len(voice.reference.codes)),
                    sound=AcousticStream(self.flow, self.vocoder, voice.reference, noise, whole=not streaming),
                )


def seeded(seed: int) -> torch.Generator:
    """Return a generator on the CPU; torch's own is left alone. Codes and the vocoder's noise have one each."""
    return torch.Generator().manual_seed(seed)
