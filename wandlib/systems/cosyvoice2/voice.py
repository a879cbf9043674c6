"""Whose voice, and what the language model is told before the text: a transcript, an instruction, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2.onnx_models import SpeakerEncoder, SpeechTokenizer
from wandlib.systems.cosyvoice2.reference import Reference, check_audio, encode, read_audio
from wandlib.systems.cosyvoice2.text import TextFrontend
from wandlib.systems.cosyvoice2.tokenizer import END_OF_PROMPT, TextTokenizer
from wandlib.systems.remembered import Remembered


@dataclass(frozen=True)
class Voice:
    """A reference and the text tokens of what it says, or of an instruction.

    Attributes
    ----------
    reference
        The recording, as the models see it.
    prompt_text
        Text tokens before those to speak.
    heard
        Whether the language model continues the recording: only with its transcript.
    """

    reference: Reference
    prompt_text: list[int]
    heard: bool


class VoiceReader:
    """Make voices of recordings.

    Parameters
    ----------
    tokenizer, frontend
        For the text before the text.
    speech_tokenizer, speaker_encoder
        For the recording.
    speakers
        Built-in voices, by name.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        frontend: TextFrontend,
        speech_tokenizer: SpeechTokenizer,
        speaker_encoder: SpeakerEncoder,
        speakers: Mapping[str, Voice] | None = None,
    ) -> None:
        self.speakers = dict(speakers or {})
        self.tokenizer, self.frontend = tokenizer, frontend
        self.speech_tokenizer, self.speaker_encoder = speech_tokenizer, speaker_encoder
        self._reference = Remembered(self._encode)

    def _encode(self, recording: Path) -> Reference:
        samples, rate = read_audio(recording)
        check_audio(samples, rate)
        return encode(samples, rate, self.speech_tokenizer, self.speaker_encoder)

    @torch.inference_mode()
    def __call__(
        self, reference: str | Path | None, transcript: str | None = None, instruct: str | None = None
    ) -> Voice:
        """Return a voice to speak in, on the CPU.

        Parameters
        ----------
        reference
            An audio file of 1 to 30 s, at least 16 kHz, or the name of a built-in speaker; None: the first of these.
            Silence is refused; music or noise is not noticed, and what is spoken after it is of no use.
        transcript
            What it says. None: cross-lingual, its voice without its words. A wrong transcript, or one in another
            language than the recording, is not noticed: the model speaks on as if the recording had said it, and what
            it says gets worse.
        instruct
            How to speak, in place of a transcript.

        Raises
        ------
        InputError
            If the reference is missing or cannot be one, or there is both a transcript and an instruction.
        """
        if reference is None and not self.speakers:
            raise InputError("CosyVoice 2 has no voice of its own: give reference=, an audio file of 3 to 10 s")
        if transcript is not None and instruct is not None:
            raise InputError("an instruction takes the transcript's place in the prompt: give one of the two")
        if reference is None or str(reference) in self.speakers:
            return self.built_in(
                next(iter(self.speakers)) if reference is None else str(reference), transcript, instruct
            )
        encoded = self._reference(reference)
        prompt = ""
        if transcript is not None:
            prompt = self.frontend.normalize(transcript)
            if not prompt:
                raise InputError("the transcript is empty: leave it out to speak without one")
        elif instruct is not None:
            prompt = instruction(instruct)
        return Voice(encoded, self.tokenizer(prompt) if prompt else [], heard=transcript is not None)

    def built_in(self, name: str, transcript: str | None, instruct: str | None) -> Voice:
        """Return a built-in voice, with an instruction in the place of its words if there is one.

        Raises
        ------
        InputError
            For a transcript: it has its own.
        """
        if transcript is not None:
            raise InputError(f"the built-in speaker {name!r} comes with what it says: leave out the transcript")
        voice = self.speakers[name]
        if instruct is None:
            return voice
        return Voice(voice.reference, self.tokenizer(instruction(instruct)), heard=False)


def instruction(text: str) -> str:
    """Return an instruction with the token that ends it."""
    return text if text.endswith(END_OF_PROMPT) else text + END_OF_PROMPT
