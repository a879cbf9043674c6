"""The embedded voice as a :class:`SpeechSystem`: text -> phones -> codes -> mel -> sound."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import convert
from wandlib.attention.models import cache_inputs
from wandlib.profiling.measure import held_bytes
from wandlib.systems.base import Attention, InputError, Speech, SpeechSystem, Step, Trace
from wandlib.systems.mini.codec import Codec
from wandlib.systems.mini.features import CODES_PER_SECOND, SAMPLE_RATE, LogMel
from wandlib.systems.mini.prompt import END, FIRST_CODE, prompt
from wandlib.systems.mini.reference import read_reference
from wandlib.systems.mini.text import PUNCTUATION, SPACE, SYMBOLS, Phonemiser
from wandlib.systems.mini.vocoder import Vocoder

ASSETS = Path(__file__).parents[2] / "assets" / "mini"
REFERENCE_CODES = 75
"""3 s of the reference go into the prompt, as in training."""
CHUNK_SYMBOLS = 200
"""Longer texts are spoken in parts, cut at punctuation: the voice was trained on up to about 20 s in one piece."""
MAXIMUM_SYMBOLS = 4_000
"""Of one text: more than MAXIMUM_CHARACTERS of prose have. Digits and emoji become many phones each."""
TEMPERATURE, TOP_K = 0.0, 20
"""Greedy, unless asked otherwise: what this voice learned from says a sentence in one way."""


@dataclass(frozen=True)
class Voice:
    """Who speaks: the codes of 3 s of speech, and the speaker vector [1, dims]."""

    codes: list[int]
    vector: Tensor


class MiniSystem(SpeechSystem):
    """The embedded voice.

    Parameters
    ----------
    codec, vocoder
        Codes to sound.
    teacher
        The language model with full attention.
    student
        The language model for the window; None: the teacher's own weights under the window.
    voices
        The built-in speakers.
    window
        Keys of generated codes that the student sees, unless asked otherwise.
    """

    name = "mini"
    sample_rate = SAMPLE_RATE
    codes_per_second = CODES_PER_SECOND

    def __init__(
        self,
        codec: Codec,
        vocoder: Vocoder,
        teacher: Qwen2ForCausalLM,
        voices: dict[str, Voice],
        student: Qwen2ForCausalLM | None = None,
        window: int = 32,
    ) -> None:
        self.codec, self.vocoder, self.voices = codec.eval(), vocoder.eval(), voices
        self.window = window
        self._log_mel = LogMel()
        self._phonemise = Phonemiser()
        # Two modules, so that both can run at once; without a student the second shares the teacher's memory.
        windowed = student if student is not None else _share(teacher)
        self.models = {"full": teacher.eval(), "window": convert(windowed.eval(), window=window)}
        """The language model behind each attention: stock transformers models, the second one converted."""

    @classmethod
    def load(cls, folder: str | Path | None = None, *, student: bool = True) -> MiniSystem:
        """Read ``codec/``, ``teacher/`` and, where there is one, ``student/`` under ``folder`` (None: as shipped).

        Parameters
        ----------
        student
            False: leave the student out, and put the teacher's own weights under the student's window.

        Raises
        ------
        FileNotFoundError
            Naming the first file that is missing.
        """
        root = Path(folder) if folder is not None else ASSETS
        for needed in (
            "codec/config.json",
            "codec/model.safetensors",
            "codec/speakers.safetensors",
            "teacher/config.json",
        ):
            if not (root / needed).is_file():
                raise FileNotFoundError(
                    f"no {needed} in {root}: the embedded voice is incomplete; install the package again"
                )
        config = json.loads((root / "codec" / "config.json").read_text(encoding="utf-8"))
        codec, vocoder = Codec(**config["codec"]), Vocoder(**config["vocoder"])
        weights = load_file(root / "codec" / "model.safetensors")
        for prefix, module in (("codec.", codec), ("vocoder.", vocoder)):
            module.load_state_dict(
                {n.removeprefix(prefix): w.float() for n, w in weights.items() if n.startswith(prefix)}
            )
        stored = load_file(root / "codec" / "speakers.safetensors")
        voices = {
            name: Voice(stored[f"{name}.codes"].tolist(), stored[f"{name}.vector"].float())
            for name in config["speakers"]
        }
        trained, window = None, 32
        if (root / "student" / "config.json").is_file():
            window = json.loads((root / "student" / "config.json").read_text(encoding="utf-8"))["wand"]["window"]
            trained = _load_language_model(root / "student") if student else None
        return cls(codec, vocoder, _load_language_model(root / "teacher"), voices, trained, window)

    @property
    def speakers(self) -> list[str]:
        return list(self.voices)

    @property
    def language_model(self) -> Qwen2ForCausalLM:
        """The teacher: a stock transformers model with full attention."""
        return self.models["full"]

    @torch.inference_mode()
    def voice(self, reference: str | Path | None = None) -> Voice:
        """The voice of a built-in speaker (by name; None: the first) or of an audio file.

        Raises
        ------
        InputError
            See :func:`wandlib.systems.mini.reference.read_reference`.
        """
        if reference is None:
            return next(iter(self.voices.values()))
        if str(reference) in self.voices:
            return self.voices[str(reference)]
        if not Path(reference).suffix and not Path(reference).is_file():
            raise InputError(
                f"no speaker named {str(reference)!r}: there are {', '.join(self.voices)}, or give an audio file"
            )
        return self.voice_of(read_reference(reference))

    @torch.inference_mode()
    def voice_of(self, samples: NDArray[np.float32]) -> Voice:
        """The voice in a waveform at 16 kHz, shape [samples], as :func:`clean_reference` returns it."""
        mel = self._log_mel(torch.from_numpy(samples)[None])
        vector = self.codec.speaker(mel[:, :1000])  # 10 s say who speaks
        codes = self.codec.encode(mel, vector)[0].tolist()
        # A shorter reference is repeated: in training the prompt always held this many codes.
        return Voice((codes * REFERENCE_CODES)[:REFERENCE_CODES], vector)

    @torch.inference_mode()
    def decode(self, codes: NDArray[np.int64], voice: Voice) -> NDArray[np.float32]:
        """Sound from codes, shape [samples]; 640 samples a code."""
        if not len(codes):
            return np.zeros(0, np.float32)
        sound = self.vocoder(self.codec.decode(torch.from_numpy(codes)[None], voice.vector))[0]
        return sound.clamp(-1, 1).numpy()

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
    ) -> Speech:
        started = time.perf_counter()
        trace = self._new_trace(attention, window)
        parts = list(self._speak(text, reference, trace, seed, temperature, top_k, on_step))
        return Speech(
            waveform=np.concatenate([sound for _, sound in parts]),
            sample_rate=SAMPLE_RATE,
            codes=np.concatenate([codes for codes, _ in parts]),
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
        window: int | None = None,
        seed: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Iterator[NDArray[np.float32]]:
        trace = self._new_trace(attention, window)
        for _, sound in self._speak(text, reference, trace, seed, temperature, top_k, on_step):
            yield sound

    def _speak(
        self,
        text: str,
        reference: str | Path | None,
        trace: Trace,
        seed: int,
        temperature: float | None,
        top_k: int | None,
        on_step: Callable[[Step], None] | None,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """(codes, sound) of one part of the text after another."""
        sampler = _Sampler(seed, TEMPERATURE if temperature is None else temperature, TOP_K if top_k is None else top_k)
        parts = self.parts(text)
        voice = self.voice(reference)
        for symbols in parts:
            codes = np.array(list(self._generate(symbols, voice, trace, sampler, on_step)), dtype=np.int64)
            yield codes, self.decode(codes, voice)

    def count_symbols(self, text: str) -> list[int]:
        """Phones, spaces and marks in each part of ``text``: speech has about two codes for each."""
        return [len(part) for part in self.parts(text)]

    def parts(self, text: str) -> list[list[int]]:
        """Symbol numbers of ``text``, in the parts that it is spoken in, one prompt each.

        Raises
        ------
        InputError
            For a text without anything to pronounce, or of more than ``MAXIMUM_SYMBOLS``.
        """
        symbols = self._phonemise(text)
        if len(symbols) > MAXIMUM_SYMBOLS:
            raise InputError(
                f"the text reads as {len(symbols):,} phones, the limit is {MAXIMUM_SYMBOLS:,}: split it into parts"
            )
        return [[SYMBOLS.index(symbol) for symbol in part] for part in split(symbols, CHUNK_SYMBOLS)]

    def _new_trace(self, attention: Attention, window: int | None) -> Trace:
        if attention not in self.models:
            raise InputError(f"attention is 'full' or 'window', not {attention!r}")
        if window is not None and window < 1:
            raise InputError(f"a window holds at least 1 key (the query's own), not {window}")
        return Trace(attention, (window or self.window) if attention == "window" else None, conditioning=0)

    @torch.inference_mode()
    def _generate(
        self, symbols: list[int], voice: Voice, trace: Trace, sampler: _Sampler, on_step: Callable[[Step], None] | None
    ) -> Iterator[int]:
        """Codes of one part, as they come; the trace grows with them."""
        model = self.models[trace.attention]
        # Speech has two codes a symbol; five are more than any voice needs, and an end for a model that finds none.
        limit = 25 + 5 * len(symbols)
        cache: Any = DynamicCache(config=model.config)
        if trace.window is not None:
            cache = WandCache(model.config, window=min(trace.window, limit))
        cached = cache_inputs(model, cache)
        head = prompt(voice.codes, symbols)
        trace.conditioning = trace.conditioning or len(head)
        trace.parts.append(0)
        clock = time.perf_counter()
        logits = model(input_ids=torch.tensor([head]), **cached, logits_to_keep=1).logits[0, -1]
        code = sampler(logits)
        trace.prefill_milliseconds += 1000 * (time.perf_counter() - clock)
        while code is not None:
            if trace.parts[-1] == limit:
                trace.finish = "limit"
                return
            trace.parts[-1] += 1
            yield code
            clock = time.perf_counter()
            logits = model(input_ids=torch.tensor([[FIRST_CODE + code]]), **cached).logits[0, -1]
            code = sampler(logits)
            step = Step(len(trace.steps), 1000 * (time.perf_counter() - clock), held_bytes(cache))
            trace.steps.append(step)
            if on_step is not None:
                on_step(step)


class _Sampler:
    """Top-k sampling over codes and the end token; everything else has no probability."""

    def __init__(self, seed: int, temperature: float, top_k: int) -> None:
        if not 0 <= temperature <= 2:
            raise InputError(f"the temperature is between 0 (greedy) and 2, not {temperature}")
        if top_k < 1:
            raise InputError(f"top_k is at least 1, not {top_k}")
        if not 0 <= seed < 2**63:
            raise InputError(f"the seed is between 0 and 2**63 - 1, not {seed}")
        self.temperature, self.top_k = temperature, top_k
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> int | None:
        """The next code; None at the end of the utterance."""
        allowed = torch.cat((logits[END : END + 1], logits[FIRST_CODE:-1])).float()
        if self.temperature < 1e-3:  # greedy; below it the division overflows
            choice = int(allowed.argmax())
        else:
            best, places = (allowed / self.temperature).topk(min(self.top_k, len(allowed)))
            choice = int(places[torch.multinomial(best.softmax(-1), 1, generator=self.generator)])
        return choice - 1 if choice else None


def split(symbols: list[str], limit: int) -> list[list[str]]:
    """Symbols in parts of at most ``limit``, cut at the last sentence end that fits, else comma, else word."""
    parts: list[list[str]] = []
    rest = symbols
    while len(rest) > limit:
        cut = limit
        for marks in (PUNCTUATION[1:], PUNCTUATION[:1], (SPACE,)):
            ends = [i + 1 for i, symbol in enumerate(rest[:limit]) if symbol in marks]
            if ends and ends[-1] > limit // 4:
                cut = ends[-1]
                break
        parts.append(_close(rest[:cut]))
        rest = rest[cut:]
        while rest and rest[0] == SPACE:
            rest = rest[1:]
    return [*parts, rest] if rest else parts


def _close(part: list[str]) -> list[str]:
    """A part ends in a mark, as every text in training did."""
    while part[-1] == SPACE:
        part = part[:-1]
    return part if part[-1] in PUNCTUATION else [*part, ","]


def save_voices(path: Path, voices: dict[str, Voice]) -> None:
    """Write built-in speakers for :meth:`MiniSystem.load`."""
    tensors: dict[str, Tensor] = {}
    for name, voice in voices.items():
        tensors[f"{name}.codes"] = torch.tensor(voice.codes, dtype=torch.int32)
        tensors[f"{name}.vector"] = voice.vector.contiguous()
    save_file(tensors, path)


def _load_language_model(folder: Path) -> Qwen2ForCausalLM:
    """In 32 bits, whatever the file holds: on a CPU that is the fastest at batch 1."""
    model = _empty(Qwen2Config.from_pretrained(folder, local_files_only=True))
    weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, assign=True)
    model.tie_weights()
    return model.eval()


def _empty(config: Qwen2Config) -> Qwen2ForCausalLM:
    """The model without memory for its weights, which are to be assigned."""
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    model.model.rotary_emb = Qwen2RotaryEmbedding(config)
    return model


def _share(model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """A second module over the same tensors."""
    twin = _empty(Qwen2Config.from_dict(model.config.to_dict()))
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.tie_weights()
    return twin.eval()
