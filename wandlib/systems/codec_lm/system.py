"""NeuTTS and Llasa as a :class:`SpeechSystem`: a stock language model, a stock codec, 50 codes a second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import convert, full_attention
from wandlib.profiling.measure import held_bytes
from wandlib.systems.acoustics.resample import resample
from wandlib.systems.base import Attention, InputError, Speech, SpeechSystem, Step, Trace
from wandlib.systems.codec_lm.dialects import DIALECTS, END, Dialect
from wandlib.systems.sound_file import read_sound
from wandlib.systems.token_loop import Sampler, decode

WINDOW = 64
CONTEXT = 2048
"""Tokens of prompt and answer together, as published."""
MAXIMUM_SECONDS = 20.0
"""Of a reference: half of the context."""


class CodecLMSystem(SpeechSystem):
    """A language model over codec tokens.

    Parameters
    ----------
    dialect
        Which system it is.
    language_model, tokenizer
        Unconverted; it is converted in place.
    codec, extractor
        The codec, and what makes its inputs of a waveform.
    """

    codes_per_second = 50.0
    window = WINDOW

    def __init__(
        self,
        dialect: Dialect,
        language_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        codec: PreTrainedModel,
        extractor: Any,
    ) -> None:
        self.name, self.dialect = dialect.name, dialect
        self.language_model = convert(language_model.eval(), window=WINDOW)
        self.tokenizer, self.codec, self.extractor = tokenizer, codec.eval(), extractor
        config: Any = codec.config
        self.reference_rate = int(getattr(config, "input_sampling_rate", 0) or config.sampling_rate)
        self.sample_rate = int(getattr(config, "output_sampling_rate", 0) or config.sampling_rate)
        known = tokenizer.get_vocab()
        names = [dialect.code.format(index) for index in range(int(np.prod(config.quantization_levels)))]
        absent = next((name for name in (*names, END) if name not in known), None)
        if absent is not None:
            raise InputError(f"the tokenizer has no {absent}: it is not that of {dialect.repository}")
        self._codes = {known[name]: index for index, name in enumerate(names)}
        self._end = known[END]

    @classmethod
    def load(
        cls,
        name: str,
        folder: str | Path,
        codec_folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> CodecLMSystem:
        """Read a language model and its codec, as published.

        Parameters
        ----------
        name
            "neutts" or "llasa".
        folder, codec_folder
            Of the language model and of the codec, in the form that transformers reads.
        device
            Of both.
        dtype
            Of the language model; None: as stored on a GPU, fp32 on a CPU.

        Raises
        ------
        FileNotFoundError
            Naming the first file that is missing.
        InputError
            If the two do not belong together.
        """
        if name not in DIALECTS:
            raise InputError(f"no system {name!r} of this kind: there are {', '.join(DIALECTS)}")
        dialect = DIALECTS[name]
        wanted = ((folder, dialect.repository, "tokenizer_config.json"), (codec_folder, dialect.codec_repository, None))
        for root, repository, extra in wanted:
            for file in ("config.json", extra or "preprocessor_config.json"):
                if not (Path(root) / file).is_file():
                    raise FileNotFoundError(
                        f"no {file} in {str(root)!r}: get the folder with `hf download {repository} --local-dir FOLDER`"
                    )
        kind = AutoConfig.from_pretrained(codec_folder).model_type
        if kind != dialect.codec:
            raise InputError(f"{str(codec_folder)!r} holds {kind}, {name} needs {dialect.codec}")
        if dtype is None and torch.device(device).type == "cpu":
            dtype = torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto")
        codec: Any = AutoModel.from_pretrained(codec_folder, dtype=torch.float32)
        return cls(
            dialect,
            model.to(device),
            AutoTokenizer.from_pretrained(folder),
            codec.to(device),
            AutoFeatureExtractor.from_pretrained(codec_folder),
        )

    @property
    def speakers(self) -> list[str]:
        return []

    @torch.inference_mode()
    def encode(self, reference: str | Path) -> Int[Tensor, " codes"]:
        """Codes of a recording; InputError as :func:`wandlib.systems.sound_file.read_sound`."""
        samples, rate = read_sound(reference, MAXIMUM_SECONDS)
        sound = resample(torch.from_numpy(samples.mean(axis=1)).float()[None], rate, self.reference_rate)
        inputs = self.extractor(sound[0].numpy(), sampling_rate=self.reference_rate, return_tensors="pt")
        codec: Any = self.codec
        codes: Tensor = codec.encode(**inputs.to(codec.device)).audio_codes
        return codes.flatten().cpu()

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
    ) -> Speech:
        started = time.perf_counter()
        if attention not in ("full", "window"):
            raise InputError(f"attention is 'full' or 'window', not {attention!r}")
        if window is not None and window < 1:
            raise InputError(f"a window holds at least 1 key (the query's own), not {window}")
        trace = Trace(attention, (window or self.window) if attention == "window" else None, conditioning=0)
        dialect = self.dialect
        sampler = Sampler(
            seed, dialect.temperature if temperature is None else temperature, top_k or dialect.top_k, dialect.top_p
        )
        prompt = self._prompt(text, reference, transcript)
        codes = list(self._codes_of(prompt, trace, sampler, on_step))
        sound = np.zeros(0, np.float32)
        if codes:
            codec: Any = self.codec
            with torch.inference_mode():
                values = codec.decode(torch.tensor([[codes]], device=codec.device)).audio_values
            sound = values.flatten().float().cpu().numpy()
        elapsed = time.perf_counter() - started
        return Speech(sound, self.sample_rate, np.array(codes, dtype=np.int64), trace, text, elapsed)

    def stream(self, text: str, *settings: Any, **named: Any) -> Iterator[NDArray[np.float32]]:
        """The whole sound in one piece: these codecs look at all codes at once."""
        yield self.synthesize(text, *settings, **named).waveform

    def _prompt(self, text: str, reference: str | Path | None, transcript: str | None) -> Int[Tensor, "1 time"]:
        """Tokens of the prompt; reference and transcript: both or neither."""
        for given in (text, transcript):
            if given is not None and not any(character.isalnum() for character in given):
                raise InputError(f"the text {given[:20]!r} has nothing to say: write a sentence")
            if given is not None and "<|" in given:
                raise InputError("the text holds '<|', which would be read as a special token of the prompt")
        if (reference is None) != (transcript is None):
            raise InputError("a reference needs its transcript, and a transcript its reference: give both or neither")
        codes = [] if reference is None else self.encode(reference).tolist()
        ids = self.dialect.prompt(self.tokenizer, text, transcript, codes)
        if len(ids) >= CONTEXT:
            raise InputError(
                f"the prompt has {len(ids)} tokens, the model was trained on {CONTEXT} for prompt and speech: shorten "
                "the text or the reference"
            )
        return torch.tensor([ids], device=self.language_model.device)

    def _codes_of(
        self, prompt: Tensor, trace: Trace, sampler: Sampler, on_step: Callable[[Step], None] | None
    ) -> Iterator[int]:
        """Codes, as they come; the trace grows with them."""
        model: Any = self.language_model
        cache: Any = DynamicCache(config=model.config)
        if trace.window is not None:
            cache = WandCache(model.config, window=trace.window)
        trace.conditioning = prompt.shape[1]
        trace.parts.append(0)
        limit = CONTEXT - prompt.shape[1]
        tokens = decode(model, prompt, cache, sampler, limit, least=self.dialect.least, ends=[self._end])
        for count in range(limit):
            with full_attention(model) if trace.window is None else contextlib.nullcontext():
                token, milliseconds = next(tokens)
            if count == 0:
                trace.prefill_milliseconds = milliseconds
            else:
                trace.steps.append(Step(len(trace.steps), milliseconds, held_bytes(cache)))
                if on_step is not None:
                    on_step(trace.steps[-1])
            if token == self._end:
                return
            if token in self._codes:
                trace.parts[-1] += 1
                yield self._codes[token]
        trace.finish = "limit"
