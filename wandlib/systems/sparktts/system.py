"""Spark-TTS as a :class:`SpeechSystem`: text and a reference, or a described voice, to codes and sound.

Wang et al., arXiv 2503.01710. The language model is a stock Qwen2 whose vocabulary holds the codec's tokens; nothing of
it is changed. With WAND (arXiv 2604.08558) its window is 64 codes, 1.3 s.

Licenses: code Apache-2.0, **weights CC-BY-NC-SA-4.0** (no commercial use; a student is shared alike).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from wandlib.attention.conversion import convert
from wandlib.systems.base import InputError, SpeechSystem
from wandlib.systems.decoding import Sampler, Utterance
from wandlib.systems.memory import explained_memory
from wandlib.systems.published import read_yaml
from wandlib.systems.remembered import Remembered
from wandlib.systems.settings import Settings
from wandlib.systems.sparktts.bicodec import BiCodec, mel_spectrogram
from wandlib.systems.sparktts.checkpoint import LAYOUT, WAV2VEC
from wandlib.systems.sparktts.prompt import AcousticVocabulary, Control, clone_prompt, control_prompt, speakable
from wandlib.systems.sparktts.reference import ReferenceReader, Voice, load_wav2vec
from wandlib.systems.sparktts.streaming import PIECE, CodecStream, context_frames
from wandlib.systems.students import load_student

WINDOW = 64
MAXIMUM_TOKENS = 3000
"""As upstream: a minute of sound."""
TEMPERATURE, TOP_K, TOP_P = 0.8, 50, 0.95


@dataclass(frozen=True)
class SparkSettings(Settings):
    """What a caller may set; a gender, pitch or speed describes the voice, in place of a reference.

    Attributes
    ----------
    transcript
        What the reference says. With it the model goes on from the reference's own codes.
    gender
        "female" or "male".
    pitch, speed
        "very_low", "low", "moderate", "high" or "very_high".
    top_p
        Sample among as many of the best codes as reach this probability.
    """

    transcript: str | None = None
    gender: str | None = None
    pitch: str | None = None
    speed: str | None = None
    top_p: float = TOP_P

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is above 0 and at most 1, not {self.top_p}")
        if self.transcript is not None:
            speakable(self.transcript)

    @property
    def control(self) -> Control | None:
        """The described voice, moderate where nothing is said; None where none is described."""
        said = {name: getattr(self, name) for name in ("gender", "pitch", "speed")}
        given = {name: value for name, value in said.items() if value is not None}
        return Control(**given) if given else None


class SparkSystem(SpeechSystem):
    """Spark-TTS.

    Parameters
    ----------
    language_model
        Unconverted; it is converted in place.
    tokenizer
        Of the language model.
    reader
        Recordings to voices; its codec also makes the sound.
    codec_settings
        The ``audio_tokenizer`` part of ``BiCodec/config.yaml``.
    student
        A language model trained for the window; None: the language model itself.
    """

    name = "sparktts"
    codes_per_second = 50.0
    window = WINDOW
    settings_type = SparkSettings

    def __init__(
        self,
        language_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        reader: ReferenceReader,
        codec_settings: dict[str, Any],
        student: PreTrainedModel | None = None,
    ) -> None:
        full = convert(language_model.eval(), window=WINDOW)
        windowed = full if student is None else convert(student.eval(), window=WINDOW)
        self.models: dict[str, Any] = {"full": full, "window": windowed}
        """The language model behind each attention; one object where there is no student."""
        self.tokenizer, self.reader, self.codec = tokenizer, reader, reader.codec
        self.sample_rate = reader.sample_rate
        codes = self.codec.quantizer.codebook.num_embeddings
        self.vocabulary = AcousticVocabulary(tokenizer, codes, self.codec.speaker_encoder.quantizer.size)
        self._ends = end_tokens(language_model)
        self._context = context_frames(codec_settings)
        self.voice = Remembered(reader)
        """The :class:`Voice` in a recording; InputError as :meth:`ReferenceReader.read`."""

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        student: bool | str | Path = True,
    ) -> SparkSystem:
        """Read the published folder ``Spark-TTS-0.5B``.

        Parameters
        ----------
        device
            Of all parts.
        dtype
            Of the language model; None: as stored on a GPU, fp32 on a CPU. The codec runs in fp32.
        student
            Folder of a language model trained for the window; the published folder has none.

        Raises
        ------
        FileNotFoundError
            Naming the first file that is missing.
        InputError
            If the folder is another system's, or its parts do not fit together.
        """
        root = LAYOUT.check(folder)
        if dtype is None and torch.device(device).type == "cpu":
            dtype = torch.float32
        with explained_memory():
            reader, settings = load_reader(root, device)
            model: Any = AutoModelForCausalLM.from_pretrained(root / "LLM", dtype=dtype or "auto")
            trained, window = None, None
            if not isinstance(student, bool):
                trained, window = load_student(student, model, LAYOUT.system, dtype)
                trained.to(device)
            system = cls(model.to(device), AutoTokenizer.from_pretrained(root / "LLM"), reader, settings, trained)
        system.window = window or WINDOW
        return system

    @property
    def speakers(self) -> list[str]:
        return []

    @property
    def language_model(self) -> PreTrainedModel:
        """The teacher: a stock model with the window applied to it."""
        model: PreTrainedModel = self.models["full"]
        return model

    def prompt(self, text: str, voice: Voice | None, transcript: str | None, control: Control | None) -> str:
        """Return the prompt of one call: a voice or a control, and for a voice what it says."""
        speakable(text)
        if control is not None:
            if voice is not None or transcript is not None:
                raise InputError("give either a reference or a described voice (gender, pitch, speed), not both")
            return control_prompt(text, control)
        if voice is None:
            raise InputError(
                "Spark-TTS has no voice of its own: give a reference recording, or a gender, pitch or speed"
            )
        return clone_prompt(text, voice.tokens.tolist(), transcript, voice.codes.tolist() if transcript else None)

    def utterances(
        self, texts: Iterator[str], reference: str | Path | None, settings: Settings, *, streaming: bool
    ) -> Iterator[Utterance]:
        assert isinstance(settings, SparkSettings)
        temperature = TEMPERATURE if settings.temperature is None else settings.temperature
        sampler = Sampler(settings.seed, temperature, settings.top_k or TOP_K, settings.top_p)
        model, voice, control = self.models[settings.attention], None, settings.control
        for text in texts:
            if voice is None and reference is not None:
                voice = self.voice(reference)
            prompt = self.prompt(text, voice, settings.transcript, control)
            made = _Made(self, voice)
            yield Utterance(
                model=model,
                prompt=self.tokenizer(prompt, return_tensors="pt").input_ids.to(model.device),
                choose=sampler,
                ends=self._ends,
                limit=MAXIMUM_TOKENS,
                sound=CodecStream(self.codec, made.voice, self._context, PIECE if streaming else None),
                code=made.code,
                # In a prompt with a transcript this token stands before the reference's codes, which are pinned too.
                conditioning_until=self.vocabulary.start_codes if voice is None else None,
            )
            voice = made.speaker  # of a described voice, too: who spoke the first text speaks the others
            control = control if voice is None else None


class _Made:
    """What one utterance has generated: its codes, and before them a described voice."""

    def __init__(self, system: SparkSystem, voice: Voice | None) -> None:
        self._vocabulary, self._needed = system.vocabulary, system.codec.speaker_encoder.tokens
        self._given = voice
        self._tokens: list[int] = [] if voice is None else voice.tokens.tolist()

    def code(self, token: int) -> int | None:
        """Return the code that a token stands for; None for any other token."""
        if self._given is None:
            self._tokens += self._vocabulary.globals_in([token]).tolist()
        found: list[int] = self._vocabulary.codes_in([token]).tolist()
        return found[0] if found else None

    @property
    def speaker(self) -> Voice | None:
        """The voice that was given or generated; None where a generated one is not whole."""
        if self._given is not None or len(self._tokens) != self._needed:
            return self._given
        return Voice(torch.zeros(0, dtype=torch.long), torch.tensor(self._tokens))

    def voice(self) -> Int[Tensor, "1 tokens"]:
        """Global tokens: the reference's, or those that were generated.

        Raises
        ------
        InputError
            If the model generated codes before it had generated a whole voice.
        """
        if len(self._tokens) != self._needed:
            raise InputError(
                f"the model described the voice with {len(self._tokens)} global tokens instead of {self._needed}: try "
                "another seed"
            )
        return torch.tensor([self._tokens])


def load_reader(root: Path, device: str | torch.device) -> tuple[ReferenceReader, dict[str, Any]]:
    """Return what reads recordings, with the codec that also makes the sound, and the codec's settings."""
    settings = read_yaml(root / "BiCodec" / "config.yaml").get("audio_tokenizer")
    if not isinstance(settings, dict):
        raise InputError("BiCodec/config.yaml has no audio_tokenizer: download the file again")
    extractor, wav2vec = load_wav2vec(root / WAV2VEC, device)
    reader = ReferenceReader(
        BiCodec.load(root / "BiCodec", settings).to(device),
        mel_spectrogram(settings).to(device),
        extractor,
        wav2vec,
        read_yaml(root / "config.yaml"),
    )
    return reader, settings


def end_tokens(model: PreTrainedModel) -> frozenset[int]:
    """Tokens that end an utterance, from the model's config."""
    ends = model.config.eos_token_id
    if ends is None:
        raise InputError("LLM/config.json names no eos_token_id, which would end an utterance: download it again")
    return frozenset(ends if isinstance(ends, list) else [ends])
