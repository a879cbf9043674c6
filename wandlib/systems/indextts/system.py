"""IndexTTS 1.5 as a :class:`SpeechSystem`: text and a reference to codes, hidden states and sound.

Zhou et al., arXiv 2502.05512. A text is spoken in parts of at most 120 tokens; the codes of a part come from a search
with three beams, which share the prompt in the cache; a second pass of the language model over them gives the hidden
states that the vocoder takes, under the same window.

Licenses: compared with tag v1.5.0 (Apache-2.0); **weights non-commercial without bilibili's written permission**, a
student included.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.conversion import convert
from wandlib.profiling.measure import held_bytes
from wandlib.systems.base import InputError, SpeechSystem, Step, Trace
from wandlib.systems.decoding import GREEDY_BELOW, Sampler, Utterance, attention_of
from wandlib.systems.indextts.checkpoint import LAYOUT, check_settings, read_language_model, read_trained
from wandlib.systems.indextts.decoding import BEAMS, MOST_CODES, TEMPERATURE, TOP_K, generate, seeded, spoken_codes
from wandlib.systems.indextts.features import SAMPLE_RATE, LogMel, read_reference
from wandlib.systems.indextts.language_model import IndexLM
from wandlib.systems.indextts.text import TextNormalizer, Tokenizer, load_wetext
from wandlib.systems.indextts.vocoder import Vocoder
from wandlib.systems.indextts.voice_encoder import VoiceEncoder
from wandlib.systems.memory import explained_memory
from wandlib.systems.published import read_yaml
from wandlib.systems.remembered import Remembered
from wandlib.systems.settings import Settings
from wandlib.systems.streaming import AtOnce

WINDOW = 32
DRAWS = threading.RLock()
"""Held while codes are drawn: ``generate`` takes no generator of its own, and torch's has one state for all threads."""


@dataclass(frozen=True)
class IndexSettings(Settings):
    """What a caller may set.

    Attributes
    ----------
    maximum_codes
        Most codes of a part; None: 600, as upstream.
    """

    maximum_codes: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maximum_codes is not None and self.maximum_codes < 1:
            raise InputError(f"maximum_codes is at least 1, not {self.maximum_codes}")


@dataclass
class Part(Utterance):
    """One part of a text: what the search needs in place of a prompt and a sampler.

    Attributes
    ----------
    latents, text
        Of the voice, and tokens of the part.
    settings
        Of the call.
    seed
        Of this part's draws.
    """

    latents: Tensor | None = None
    text: Tensor | None = None
    settings: Settings | None = None
    seed: int = 0


class IndexSystem(SpeechSystem):
    """IndexTTS 1.5.

    Parameters
    ----------
    language_model
        Unconverted; it is converted in place.
    voice_encoder, vocoder, tokenizer
        The other parts.
    student
        A language model trained for the window; None: the language model itself.
    beams
        Of the search.
    """

    name = "indextts"
    sample_rate = SAMPLE_RATE
    window = WINDOW
    settings_type = IndexSettings

    def __init__(
        self,
        language_model: IndexLM,
        voice_encoder: VoiceEncoder,
        vocoder: Vocoder,
        tokenizer: Tokenizer,
        student: IndexLM | None = None,
        *,
        beams: int = BEAMS,
    ) -> None:
        full = convert(language_model.eval(), window=WINDOW)
        self.models = {"full": full, "window": full if student is None else convert(student.eval(), window=WINDOW)}
        """The language model behind each attention; one object where there is no student."""
        self.voice_encoder, self.vocoder, self.tokenizer = voice_encoder.eval(), vocoder.eval(), tokenizer
        self.codes_per_second = SAMPLE_RATE / vocoder.samples
        self.beams = beams
        self._log_mel = LogMel().to(language_model.device)
        self._voice = Remembered(self._encode)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        student: bool | str | Path = True,
    ) -> IndexSystem:
        """Read the published folder ``IndexTTS-1.5``.

        Parameters
        ----------
        device
            Of all parts.
        dtype
            Of the language model; None: fp32. Voice encoder and vocoder run in fp32.
        student
            A language model trained for the window: the folder that ``wandlib train`` wrote, a ``gpt.pth``, or a folder
            with one. The published folder has none.

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
        model, voice = read_language_model(root / "gpt.pth", settings["gpt"], dtype or torch.float32)
        trained, trained_for = None, None
        if not isinstance(student, bool):
            trained, trained_for = read_trained(student, model, settings["gpt"], dtype or torch.float32)
        vocoder = Vocoder.load(root / "bigvgan_generator.pth", settings["bigvgan"])
        parts: list[Any] = [model, trained, voice, vocoder]
        with explained_memory():
            for part in parts:
                if part is not None:
                    part.to(device=device)
        system = cls(model, voice, vocoder, tokenizer, trained)
        system.window = trained_for or WINDOW
        return system

    @property
    def speakers(self) -> list[str]:
        return []

    @property
    def language_model(self) -> IndexLM:
        """The teacher, with the window applied to it."""
        return self.models["full"]

    def voice(
        self, reference: str | Path | None
    ) -> tuple[Float[Tensor, "1 bands frames"], Float[Tensor, "1 latents width"]]:
        """Log-mel spectrum and latents of a recording.

        Raises
        ------
        InputError
            If there is no recording, or see :func:`wandlib.systems.indextts.features.read_reference`.
        """
        if reference is None:
            raise InputError("IndexTTS has no voice of its own: give a reference recording")
        return self._voice(reference)

    @torch.inference_mode()
    def _encode(self, recording: Path) -> tuple[Tensor, Tensor]:
        mel: Tensor = self._log_mel(read_reference(recording).to(self.language_model.device))
        return mel, self.voice_encoder(mel)

    def utterances(
        self, texts: Iterator[str], reference: str | Path | None, settings: Settings, *, streaming: bool
    ) -> Iterator[Utterance]:
        assert isinstance(settings, IndexSettings)
        model = self.models[settings.attention]
        limit = settings.maximum_codes or min(MOST_CODES, model.config.most_codes)
        window = None if settings.attention == "full" else settings.window or self.window
        seed = settings.seed
        for words in texts:
            mel, latents = self.voice(reference)
            for part in self.tokenizer.parts(words):
                text = torch.tensor([part], device=mel.device)

                yield Part(
                    model=model,
                    prompt=model.prefix(latents.to(model.dtype), text),
                    choose=Sampler(seed, 0.0, 1),  # the search chooses
                    ends=frozenset({model.config.end_code}),
                    limit=limit,
                    sound=AtOnce(partial(self._sound, model, mel, latents, text, window)),
                    latents=latents.to(model.dtype),
                    text=text,
                    settings=settings,
                    seed=seed,
                )
                seed += 1

    def codes(self, utterance: Utterance, trace: Trace, on_step: Callable[[Step], None] | None) -> Iterator[int]:
        """Yield the codes of one part, when the search for all of them is done."""
        assert isinstance(utterance, Part)
        part, model = utterance, utterance.model
        assert part.latents is not None
        assert part.text is not None
        assert part.settings is not None
        cache: Any = DynamicCache(config=model.gpt.config)
        if trace.window is not None:
            cache = WandCache(model.gpt.config, min(trace.window, part.limit), shared=self.beams)
        prefilled = False

        def clock(milliseconds: float) -> None:
            nonlocal prefilled
            if not prefilled:
                prefilled = True
                trace.prefill_milliseconds += milliseconds
                return
            step = trace.add_step(milliseconds, held_bytes(cache))
            if on_step is not None:
                on_step(step)

        temperature = TEMPERATURE if part.settings.temperature is None else part.settings.temperature
        with DRAWS, seeded(part.seed, model.device), attention_of(model, trace.window):
            generated = generate(
                model,
                part.latents,
                part.text,
                cache=cache,
                limit=part.limit,
                beams=self.beams,
                sampled=temperature >= GREEDY_BELOW,
                top_k=part.settings.top_k or TOP_K,
                temperature=temperature,
                on_step=clock,
            )
        end = model.config.end_code
        if end not in generated[0].tolist():
            trace.finish = "limit"
        trace.conditioning = trace.conditioning or part.prompt.shape[1]
        (codes,) = spoken_codes(generated, end).tolist()
        trace.parts.append(len(codes))
        yield from codes

    @torch.inference_mode()
    def _sound(
        self,
        model: IndexLM,
        mel: Tensor,
        latents: Tensor,
        text: Tensor,
        window: int | None,
        codes: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Sound of one part, by the second pass and the vocoder."""
        if not len(codes):
            return np.zeros(0, np.float32)
        spoken = torch.from_numpy(codes)[None].to(text.device)
        with attention_of(model, window):
            states = model.states(latents.to(model.dtype), text, spoken, window=window)
        sound: NDArray[np.float32] = self.vocoder(states.float(), mel)[0].cpu().numpy()
        return sound
