"""CosyVoice 2 as a :class:`SpeechSystem`: text and a reference in, sound out, under full attention or the window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wandlib import convert
from wandlib.systems.base import Attention, InputError, Speech, SpeechSystem, Step, Trace
from wandlib.systems.cosyvoice2 import folder as published
from wandlib.systems.cosyvoice2.decoding import Decoder
from wandlib.systems.cosyvoice2.flow import Flow
from wandlib.systems.cosyvoice2.hift import HiFT
from wandlib.systems.cosyvoice2.language_model import CosyVoice2LM
from wandlib.systems.cosyvoice2.onnx_models import SpeakerEncoder, SpeechTokenizer
from wandlib.systems.cosyvoice2.reference import Reference, check_audio, encode, read_audio
from wandlib.systems.cosyvoice2.sampling import RepetitionAware
from wandlib.systems.cosyvoice2.streaming import AcousticStream
from wandlib.systems.cosyvoice2.text import TextFrontend
from wandlib.systems.cosyvoice2.tokenizer import END_OF_PROMPT, TextTokenizer

MAXIMUM_CHARACTERS = 20_000
LONGEST_PART = 400
"""Text tokens of one part: 20 codes each are 320 s, and the flow's noise ends at 300 s with the reference."""


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
    """

    name = "cosyvoice2"
    sample_rate = 24_000
    codes_per_second = 25.0

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
    ) -> None:
        self.device = torch.device(device)
        self.flow, self.vocoder = flow.to(self.device).eval(), vocoder.to(self.device).eval().fold_norms()
        self.tokenizer, self.frontend = tokenizer, TextFrontend(lambda text: len(tokenizer(text)))
        self.speech_tokenizer, self.speaker_encoder = speech_tokenizer, speaker_encoder
        self.window = window
        full = convert(language_model.to(self.device).eval(), window=window)  # type: ignore[arg-type]
        windowed = full if student is None else convert(student.to(self.device).eval(), window=window)  # type: ignore[arg-type]
        self.models = {"full": full, "window": windowed}
        """The language model behind each attention; one object where there is no student."""
        self.decoders = {name: Decoder(model, sampling) for name, model in self.models.items()}

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        student: str | Path | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        window: int | None = None,
    ) -> CosyVoice2System:
        """Read a published folder.

        Parameters
        ----------
        folder
            ``CosyVoice2-0.5B``, as it is published.
        student
            A folder with a language model that was trained for the window (``wandlib train``).
        device
            Where it runs.
        dtype
            Of the language model; None: as published, float32. Flow and vocoder are float32 always.
        window
            In keys; None: the student's, or 32.

        Raises
        ------
        InputError
            Naming the first file that is missing or does not fit, or the device that there is none of.
        """
        root, target = published.check_folder(folder), torch.device(device)
        if target.type == "cuda" and not torch.cuda.is_available():
            raise InputError("this machine has no CUDA device that torch can use: device='cpu'")
        with explained_memory(target):
            language_model = published.load_language_model(root, dtype).to(target)  # type: ignore[arg-type]
            settings, trained = published.load_settings(root), None
            if student is not None:
                trained, stored = load_student(student, dtype or torch.float32)
                window = window or stored
            with torch.device("meta"):
                flow, vocoder = settings.flow(), settings.hift()
            published.load_acoustics(flow, root / "flow.pt")
            published.load_acoustics(vocoder, root / "hift.pt", prefix="generator.")
            vocoder.window = torch.hann_window(vocoder.n_fft)  # a constant, not in the file
            return cls(
                language_model,
                flow,
                vocoder,
                TextTokenizer(root / published.BASE),
                SpeechTokenizer(root / "speech_tokenizer_v2.onnx", cuda=target.type == "cuda"),
                SpeakerEncoder(root / "campplus.onnx"),
                student=trained,
                sampling=settings.sampling,
                window=window or 32,
                device=target,
            )

    @property
    def speakers(self) -> list[str]:
        return []

    @property
    def language_model(self) -> CosyVoice2LM:
        """The teacher: an ordinary causal model over :class:`CosyVoice2Config`'s ids, with the window applied to it."""
        return self.models["full"]

    @torch.inference_mode()
    def voice(self, reference: str | Path | None, transcript: str | None = None, instruct: str | None = None) -> Voice:
        """Return a voice to speak in.

        Parameters
        ----------
        reference
            An audio file of 1 to 30 s, at least 16 kHz.
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
        if reference is None:
            raise InputError("CosyVoice 2 has no voice of its own: give reference=, an audio file of 3 to 10 s")
        if transcript is not None and instruct is not None:
            raise InputError("an instruction takes the transcript's place in the prompt: give one of the two")
        samples, rate = read_audio(reference)
        check_audio(samples, rate)
        encoded = encode(samples, rate, self.speech_tokenizer, self.speaker_encoder).to(self.device)
        prompt = ""
        if transcript is not None:
            prompt = self.frontend.normalize(transcript)
            if not prompt:
                raise InputError("the transcript is empty: leave it out to speak without one")
        elif instruct is not None:
            prompt = instruct if instruct.endswith(END_OF_PROMPT) else instruct + END_OF_PROMPT
        return Voice(encoded, self.tokenizer(prompt) if prompt else [], heard=transcript is not None)

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

    def synthesize(
        self,
        text: str,
        reference: str | Path | None = None,
        attention: Attention = "full",
        *,
        transcript: str | None = None,
        instruct: str | None = None,
        window: int | None = None,
        seed: int = 0,
        normalize: bool = True,
        on_step: Callable[[Step], None] | None = None,
        **other: Any,
    ) -> Speech:
        started = time.perf_counter()
        sounds, codes = [], list[int]()
        trace = self._trace(attention, window, other)
        draws, noise = seeded(seed), seeded(seed)
        with explained_memory(self.device):
            parts, voice = self.parts(text, normalize=normalize), self.voice(reference, transcript, instruct)
            for part in parts:
                stream = AcousticStream(self.flow, self.vocoder, voice.reference, noise)
                stream.codes = list(self._codes(part, voice, trace, draws, on_step))
                sounds += list(stream.finish())
                codes += stream.codes
        waveform = torch.cat(sounds).cpu().numpy() if sounds else np.zeros(0, np.float32)
        return Speech(
            waveform=waveform,
            sample_rate=self.sample_rate,
            codes=np.array(codes, dtype=np.int64),
            trace=trace,
            text=text,
            seconds_to_compute=time.perf_counter() - started,
        )

    def stream(
        self,
        text: str,
        reference: str | Path | None = None,
        attention: Attention = "full",
        *,
        transcript: str | None = None,
        instruct: str | None = None,
        window: int | None = None,
        seed: int = 0,
        normalize: bool = True,
        on_step: Callable[[Step], None] | None = None,
        **other: Any,
    ) -> Iterator[NDArray[np.float32]]:
        trace = self._trace(attention, window, other)
        draws, noise = seeded(seed), seeded(seed)
        with explained_memory(self.device):
            parts, voice = self.parts(text, normalize=normalize), self.voice(reference, transcript, instruct)
            for part in parts:
                stream = AcousticStream(self.flow, self.vocoder, voice.reference, noise)
                for code in self._codes(part, voice, trace, draws, on_step):
                    for sound in stream.push(code):
                        yield sound.cpu().numpy()
                for sound in stream.finish():
                    yield sound.cpu().numpy()

    def _codes(
        self,
        part: list[int],
        voice: Voice,
        trace: Trace,
        generator: torch.Generator,
        on_step: Callable[[Step], None] | None,
    ) -> Iterator[int]:
        """Codes of one part of the text."""
        decoder = self.decoders[trace.attention]
        prompt = decoder.model.config.prompt(voice.prompt_text + part, voice.reference.codes if voice.heard else None)
        return decoder(prompt, len(part), trace, generator, on_step)

    def _trace(self, attention: Attention, window: int | None, other: dict[str, Any]) -> Trace:
        if attention not in self.models:
            raise InputError(f"attention is 'full' or 'window', not {attention!r}")
        if window is not None and window < 1:
            raise InputError(f"a window holds at least 1 key (the query's own), not {window}")
        for name, value in other.items():
            if value is not None:
                raise InputError(f"CosyVoice 2 takes no {name}: its sampling is repetition-aware, as published")
        return Trace(attention, (window or self.window) if attention == "window" else None, conditioning=0)


def load_student(folder: str | Path, dtype: torch.dtype) -> tuple[CosyVoice2LM, int | None]:
    """Return a trained language model, and the window that it was trained for.

    Raises
    ------
    InputError
        If the folder holds none.
    """
    root = Path(folder)
    if not (root / "config.json").is_file():
        raise InputError(f"no config.json in {str(root)!r}: give the folder that wandlib train wrote")
    try:
        model = CosyVoice2LM.from_pretrained(root, dtype=dtype, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{str(root)!r} holds no language model of CosyVoice: {error}") from error
    settings = getattr(model.config, "wand", None) or {}
    return model, settings.get("window")


def seeded(seed: int) -> torch.Generator:
    """Return a generator on the CPU; torch's own is left alone. Codes and the vocoder's noise have one each."""
    if not 0 <= seed < 2**63:
        raise InputError(f"the seed is between 0 and 2**63 - 1, not {seed}")
    return torch.Generator().manual_seed(seed)


@contextmanager
def explained_memory(device: torch.device) -> Iterator[None]:
    """Turn CUDA's out-of-memory error into an InputError with the cure."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            f"{device} has too little memory: load with dtype=torch.bfloat16 (1 GB less), speak shorter parts, or use "
            "device='cpu'"
        ) from error
