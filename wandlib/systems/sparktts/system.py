"""Spark-TTS as a :class:`SpeechSystem`: text and a reference, or a described voice, to codes and sound.

Wang et al., arXiv 2503.01710. The language model is a stock Qwen2 whose vocabulary holds the codec's tokens; nothing of
it is changed. With WAND (arXiv 2604.08558) its window is 64 codes, 1.3 s.

Licenses: code Apache-2.0, **weights CC-BY-NC-SA-4.0** (no commercial use; a student is shared alike).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import convert, full_attention
from wandlib.profiling.measure import held_bytes
from wandlib.systems.base import Attention, InputError, Speech, SpeechSystem, Step, Trace
from wandlib.systems.published import read_yaml
from wandlib.systems.sparktts.bicodec import BiCodec, mel_spectrogram
from wandlib.systems.sparktts.checkpoint import LAYOUT, WAV2VEC
from wandlib.systems.sparktts.prompt import AcousticVocabulary, Control, check_text, clone_prompt, control_prompt
from wandlib.systems.sparktts.reference import ReferenceReader, Voice, load_wav2vec
from wandlib.systems.sparktts.streaming import context_frames, decoded_in_pieces
from wandlib.systems.token_loop import Sampler, decode

WINDOW = 64
MAXIMUM_TOKENS = 3000
"""As upstream: a minute of sound."""
TEMPERATURE, TOP_K, TOP_P = 0.8, 50, 0.95


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
    """

    name = "sparktts"
    codes_per_second = 50.0
    window = WINDOW

    def __init__(
        self,
        language_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        reader: ReferenceReader,
        codec_settings: dict[str, Any],
    ) -> None:
        self.language_model = convert(language_model.eval(), window=WINDOW)
        self.tokenizer, self.reader, self.codec = tokenizer, reader, reader.codec
        self.sample_rate = reader.sample_rate
        speaker = self.codec.speaker_encoder
        self.vocabulary = AcousticVocabulary(
            tokenizer, self.codec.quantizer.codebook.num_embeddings, speaker.quantizer.size
        )
        self._context = context_frames(codec_settings)
        self._voices: dict[tuple[str, float], Voice] = {}

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        student: str | Path | None = None,
    ) -> SparkSystem:
        """Read the published folder ``Spark-TTS-0.5B``.

        Parameters
        ----------
        device
            Of all parts.
        dtype
            Of the language model; None: as stored on a GPU, fp32 on a CPU. The codec runs in fp32.
        student
            Folder of a language model trained for the window, in place of ``LLM/``.

        Raises
        ------
        FileNotFoundError
            Naming the first file that is missing.
        InputError
            If the folder is another system's, or its parts do not fit together.
        """
        root = LAYOUT.check(folder)
        settings = read_yaml(root / "BiCodec" / "config.yaml").get("audio_tokenizer")
        if not isinstance(settings, dict):
            raise InputError("BiCodec/config.yaml has no audio_tokenizer: download the file again")
        if dtype is None and torch.device(device).type == "cpu":
            dtype = torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(student or root / "LLM", dtype=dtype or "auto")
        vars(model.config).pop("wand", None)  # of a student that was saved with its window
        extractor, wav2vec = load_wav2vec(root / WAV2VEC, device)
        reader = ReferenceReader(
            BiCodec.load(root / "BiCodec", settings).to(device),
            mel_spectrogram(settings).to(device),
            extractor,
            wav2vec,
            read_yaml(root / "config.yaml"),
        )
        return cls(model.to(device), AutoTokenizer.from_pretrained(root / "LLM"), reader, settings)

    @property
    def speakers(self) -> list[str]:
        return []

    def voice(self, reference: str | Path) -> Voice:
        """The voice in a recording; that of the file read last is remembered.

        Raises
        ------
        InputError
            See :meth:`ReferenceReader.read`.
        """
        path = Path(reference)
        key = (str(path.resolve()), path.stat().st_mtime if path.is_file() else 0.0)
        if key not in self._voices:
            self._voices = {key: self.reader(path)}
        return self._voices[key]

    def prompt(self, text: str, voice: Voice | None, transcript: str | None, control: Control | None) -> str:
        """The prompt of one call: a voice or a control, and for a voice what it says."""
        check_text(text)
        if control is not None:
            if voice is not None or transcript is not None:
                raise InputError("give either a reference or a control (gender, pitch, speed), not both")
            return control_prompt(text, control)
        if voice is None:
            raise InputError(
                "Spark-TTS has no voice of its own: give a reference recording, or control=Control(gender, ...)"
            )
        if transcript is not None:
            check_text(transcript)
        return clone_prompt(text, voice.tokens.tolist(), transcript, voice.codes.tolist() if transcript else None)

    def synthesize(
        self,
        text: str,
        reference: str | Path | None = None,
        attention: Attention = "full",
        *,
        window: int | None = None,
        seed: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        on_step: Callable[[Step], None] | None = None,
        transcript: str | None = None,
        control: Control | None = None,
        top_p: float = TOP_P,
    ) -> Speech:
        started = time.perf_counter()
        utterance = self._utterance(text, reference, attention, window, transcript, control)
        sampler = Sampler(seed, TEMPERATURE if temperature is None else temperature, top_k or TOP_K, top_p)
        codes = torch.tensor(list(utterance.codes(sampler, on_step)), dtype=torch.long)
        sound = np.zeros(0, np.float32)
        if len(codes):
            with torch.inference_mode():
                device = self.language_model.device
                sound = (
                    self.codec.decode(codes[None].to(device), utterance.tokens().to(device))[0].float().cpu().numpy()
                )
        return Speech(sound, self.sample_rate, codes.numpy(), utterance.trace, text, time.perf_counter() - started)

    def stream(
        self,
        text: str,
        reference: str | Path | None = None,
        attention: Attention = "full",
        *,
        window: int | None = None,
        seed: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        on_step: Callable[[Step], None] | None = None,
        transcript: str | None = None,
        control: Control | None = None,
        top_p: float = TOP_P,
    ) -> Iterator[NDArray[np.float32]]:
        utterance = self._utterance(text, reference, attention, window, transcript, control)
        sampler = Sampler(seed, TEMPERATURE if temperature is None else temperature, top_k or TOP_K, top_p)
        codes = utterance.codes(sampler, on_step)
        first = next(codes, None)
        if first is None:
            return
        tokens = utterance.tokens().to(self.language_model.device)
        for sound in decoded_in_pieces(self.codec, _chain(first, codes), tokens, self._context):
            yield sound.float().cpu().numpy()

    def _utterance(
        self,
        text: str,
        reference: str | Path | None,
        attention: Attention,
        window: int | None,
        transcript: str | None,
        control: Control | None,
    ) -> _Utterance:
        if attention not in ("full", "window"):
            raise InputError(f"attention is 'full' or 'window', not {attention!r}")
        if window is not None and window < 1:
            raise InputError(f"a window holds at least 1 key (the query's own), not {window}")
        voice = None if reference is None else self.voice(reference)
        prompt = self.prompt(text, voice, transcript, control)
        trace = Trace(attention, (window or self.window) if attention == "window" else None, conditioning=0)
        return _Utterance(self, prompt, voice, trace)


class _Utterance:
    """One call of the system: its prompt, its cost, and the voice once it is known."""

    def __init__(self, system: SparkSystem, prompt: str, voice: Voice | None, trace: Trace) -> None:
        self.system, self.voice, self.trace = system, voice, trace
        device = system.language_model.device
        self.ids: Tensor = system.tokenizer(prompt, return_tensors="pt").input_ids.to(device)
        self.generated: list[int] = []

    def codes(self, sampler: Sampler, on_step: Callable[[Step], None] | None) -> Iterator[int]:
        """Semantic codes, as they come; the trace grows with every token."""
        system, trace, model = self.system, self.trace, self.system.language_model
        cache: Any = DynamicCache(config=model.config)
        if trace.window is not None:
            until = system.vocabulary.start_codes if self.voice is None else None
            cache = WandCache(model.config, window=trace.window, conditioning_until=until)
        trace.conditioning = self.ids.shape[1]
        trace.parts.append(0)
        ends = _end_tokens(model)
        tokens = decode(model, self.ids, cache, sampler, MAXIMUM_TOKENS)
        while True:
            # Around each call and not around the yield: a stream at rest must not change what others see.
            with full_attention(model) if trace.window is None else contextlib.nullcontext():
                token, milliseconds = next(tokens, (None, 0.0))
            if token is None:
                trace.finish = "limit"
                return
            if len(self.generated) == 0:
                trace.prefill_milliseconds = milliseconds
            else:
                trace.steps.append(Step(len(trace.steps), milliseconds, held_bytes(cache)))
                if on_step is not None:
                    on_step(trace.steps[-1])
            if token in ends:
                return
            if self.voice is None and system.vocabulary.start_codes not in self.generated:
                trace.conditioning += 1  # style and voice that the model describes, up to and with the start of codes
            self.generated.append(token)
            for code in system.vocabulary.codes_in([token]).tolist():
                trace.parts[-1] += 1
                yield code

    def tokens(self) -> Tensor:
        """Global tokens, [1, tokens]: the reference's, or in control mode those that were generated.

        Raises
        ------
        InputError
            If the model generated codes before it had generated a whole voice.
        """
        if self.voice is not None:
            return self.voice.tokens[None]
        tokens = self.system.vocabulary.globals_in(self.generated)
        needed = self.system.codec.speaker_encoder.tokens
        if len(tokens) != needed:
            raise InputError(
                f"the model described the voice with {len(tokens)} global tokens instead of {needed}: try another seed"
            )
        return tokens[None]


def _end_tokens(model: PreTrainedModel) -> set[int]:
    """Tokens that end an utterance, from the model's config."""
    ends = model.config.eos_token_id
    if ends is None:
        raise InputError("LLM/config.json names no eos_token_id, which would end an utterance: download it again")
    return set(ends) if isinstance(ends, list) else {ends}


def _chain(first: int, rest: Iterator[int]) -> Iterator[int]:
    yield first
    yield from rest
