"""IndexTTS 1.5 as a :class:`SpeechSystem`: text and a reference to codes, hidden states and sound.

Zhou et al., arXiv 2502.05512. A text is spoken in parts of at most 120 tokens; the codes of a part come from a search
with three beams, which share the prompt in the cache; a second pass of the language model over them gives the hidden
states that the vocoder takes, under the same window.

Licenses: compared with tag v1.5.0 (Apache-2.0); **weights non-commercial without bilibili's written permission**, a
student included.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import convert, full_attention
from wandlib.profiling.measure import held_bytes
from wandlib.systems.base import Attention, InputError, Speech, SpeechSystem, Step, Trace
from wandlib.systems.indextts.checkpoint import LAYOUT, check_settings, read_language_model
from wandlib.systems.indextts.decoding import (
    BEAMS,
    MOST_CODES,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    generate,
    spoken_codes,
)
from wandlib.systems.indextts.features import SAMPLE_RATE, LogMel, read_reference
from wandlib.systems.indextts.language_model import IndexLM
from wandlib.systems.indextts.text import TextNormalizer, Tokenizer, load_wetext
from wandlib.systems.indextts.vocoder import Vocoder
from wandlib.systems.indextts.voice_encoder import VoiceEncoder
from wandlib.systems.published import read_yaml

WINDOW = 32
GREEDY_BELOW = 1e-3


class IndexSystem(SpeechSystem):
    """IndexTTS 1.5.

    Parameters
    ----------
    language_model
        Unconverted; it is converted in place.
    voice_encoder, vocoder, tokenizer
        The other parts.
    beams
        Of the search.
    """

    name = "indextts"
    sample_rate = SAMPLE_RATE
    window = WINDOW

    def __init__(
        self,
        language_model: IndexLM,
        voice_encoder: VoiceEncoder,
        vocoder: Vocoder,
        tokenizer: Tokenizer,
        *,
        beams: int = BEAMS,
    ) -> None:
        self.language_model = convert(language_model.eval(), window=WINDOW)
        self.voice_encoder, self.vocoder, self.tokenizer = voice_encoder.eval(), vocoder.eval(), tokenizer
        self.codes_per_second = SAMPLE_RATE / vocoder.samples
        self.beams = beams
        self._log_mel = LogMel().to(language_model.device)
        self._voices: dict[tuple[str, float], tuple[Tensor, Tensor]] = {}

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        student: str | Path | None = None,
    ) -> IndexSystem:
        """Read the published folder ``IndexTTS-1.5``.

        Parameters
        ----------
        device
            Of all parts.
        dtype
            Of the language model; None: fp32. Voice encoder and vocoder run in fp32.
        student
            A ``gpt.pth`` trained for the window, in place of the folder's.

        Raises
        ------
        FileNotFoundError
            Naming the first file that is missing.
        InputError
            If the folder is another system's or another version's, or its parts do not fit together.
        ImportError
            Where sentencepiece is missing.
        """
        root = LAYOUT.check(folder)
        settings: Any = check_settings(read_yaml(root / "config.yaml"))
        tokenizer = Tokenizer(root / "bpe.model", TextNormalizer(load_wetext()))
        model, voice = read_language_model(Path(student) if student else root / "gpt.pth", settings["gpt"])
        vocoder = Vocoder.load(root / "bigvgan_generator.pth", settings["bigvgan"])
        placed: Any = model
        placed.to(device=device, dtype=dtype or torch.float32)
        return cls(model, voice.to(device), vocoder.to(device), tokenizer)

    @property
    def speakers(self) -> list[str]:
        return []

    @torch.inference_mode()
    def voice(
        self, reference: str | Path | None
    ) -> tuple[Float[Tensor, "1 bands frames"], Float[Tensor, "1 latents width"]]:
        """Log-mel spectrum and latents of a recording; those of the file read last are remembered.

        Raises
        ------
        InputError
            If there is no recording, or see :func:`wandlib.systems.indextts.features.read_reference`.
        """
        if reference is None:
            raise InputError("IndexTTS has no voice of its own: give a reference recording")
        path = Path(reference)
        key = (str(path.resolve()), path.stat().st_mtime if path.is_file() else 0.0)
        if key not in self._voices:
            mel = self._log_mel(read_reference(path).to(self.language_model.device))
            self._voices = {key: (mel, self.voice_encoder(mel))}
        return self._voices[key]

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
        maximum_codes: int | None = None,
    ) -> Speech:
        started = time.perf_counter()
        trace = self._trace(attention, window)
        spoken = list(self._speak(text, reference, trace, seed, temperature, top_k, on_step, maximum_codes))
        return Speech(
            waveform=np.concatenate([sound for _, sound in spoken]),
            sample_rate=SAMPLE_RATE,
            codes=np.concatenate([codes for codes, _ in spoken]),
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
        maximum_codes: int | None = None,
    ) -> Iterator[NDArray[np.float32]]:
        trace = self._trace(attention, window)
        for _, sound in self._speak(text, reference, trace, seed, temperature, top_k, on_step, maximum_codes):
            yield sound

    def _trace(self, attention: Attention, window: int | None) -> Trace:
        if attention not in ("full", "window"):
            raise InputError(f"attention is 'full' or 'window', not {attention!r}")
        if window is not None and window < 1:
            raise InputError(f"a window holds at least 1 key (the query's own), not {window}")
        return Trace(attention, (window or self.window) if attention == "window" else None, conditioning=0)

    def _speak(
        self,
        text: str,
        reference: str | Path | None,
        trace: Trace,
        seed: int,
        temperature: float | None,
        top_k: int | None,
        on_step: Callable[[Step], None] | None,
        maximum_codes: int | None,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """(codes, sound) of one part of the text after another."""
        if not 0 <= seed < 2**63:
            raise InputError(f"seed is between 0 and 2**63 - 1, not {seed}")
        temperature = TEMPERATURE if temperature is None else temperature
        if not 0 <= temperature <= 2:
            raise InputError(f"temperature is between 0 (beam search without sampling) and 2, not {temperature}")
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k is at least 1, not {top_k}")
        limit = maximum_codes or min(MOST_CODES, self.language_model.config.most_codes)
        mel, latents = self.voice(reference)
        for index, part in enumerate(self.tokenizer.parts(text)):
            tokens = torch.tensor([part], device=mel.device)
            with torch.random.fork_rng(devices=[mel.device] if mel.is_cuda else []):
                torch.manual_seed(seed + index)
                codes = self._codes(latents, tokens, trace, limit, temperature, top_k or TOP_K, on_step)
            yield codes[0].cpu().numpy(), self._sound(mel, latents, tokens, codes, trace)

    def _codes(
        self,
        latents: Tensor,
        tokens: Int[Tensor, "1 text"],
        trace: Trace,
        limit: int,
        temperature: float,
        top_k: int,
        on_step: Callable[[Step], None] | None,
    ) -> Int[Tensor, "1 codes"]:
        """Codes of one part; the trace grows with them."""
        model = self.language_model
        cache: Any = DynamicCache(config=model.gpt.config)
        if trace.window is not None:
            cache = WandCache(model.gpt.config, trace.window, shared=self.beams)
        prefilled = False

        def clock(milliseconds: float) -> None:
            nonlocal prefilled
            if not prefilled:
                prefilled = True
                trace.prefill_milliseconds += milliseconds
                return
            trace.steps.append(Step(len(trace.steps), milliseconds, held_bytes(cache)))
            if on_step is not None:
                on_step(trace.steps[-1])

        with full_attention(model) if trace.window is None else contextlib.nullcontext():
            generated = generate(
                model,
                latents.to(model.dtype),
                tokens,
                cache=cache,
                limit=limit,
                beams=self.beams,
                sampled=temperature >= GREEDY_BELOW,
                top_p=TOP_P,
                top_k=top_k,
                temperature=float(temperature),
                on_step=clock,
            )
        end = model.config.end_code
        if end not in generated[0].tolist():
            trace.finish = "limit"
        trace.conditioning = trace.conditioning or latents.shape[1] + tokens.shape[1] + 3
        codes = spoken_codes(generated, end)
        trace.parts.append(codes.shape[1])
        return codes

    @torch.inference_mode()
    def _sound(
        self, mel: Tensor, latents: Tensor, tokens: Tensor, codes: Int[Tensor, "1 codes"], trace: Trace
    ) -> NDArray[np.float32]:
        """Sound of one part, by the second pass and the vocoder."""
        model = self.language_model
        if not codes.shape[1]:
            return np.zeros(0, np.float32)
        with full_attention(model) if trace.window is None else contextlib.nullcontext():
            states = model.states(latents.to(model.dtype), tokens, codes, window=trace.window)
        sound: NDArray[np.float32] = self.vocoder(states.float(), mel)[0].cpu().numpy()
        return sound
