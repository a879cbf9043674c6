"""The embedded voice as a :class:`SpeechSystem`: text -> phones -> codes -> mel -> sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen2ForCausalLM

from wandlib.attention.conversion import convert
from wandlib.systems.base import SpeechSystem
from wandlib.systems.decoding import Sampler, Utterance, new_cache
from wandlib.systems.espeak import ONE_READER
from wandlib.systems.mini.codec import CODES, Codec
from wandlib.systems.mini.features import CODES_PER_SECOND, SAMPLE_RATE, LogMel
from wandlib.systems.mini.parts import pieces, split
from wandlib.systems.mini.prompt import END, FIRST_CODE, prompt, text_block
from wandlib.systems.mini.reading import joined
from wandlib.systems.mini.reference import read_reference
from wandlib.systems.mini.streaming import MiniSoundStream
from wandlib.systems.mini.text import MAXIMUM_CHARACTERS, SYMBOLS, Phonemizer, check_script, scripts_of
from wandlib.systems.mini.vocoder import Vocoder
from wandlib.systems.mini.weights import (
    ASSETS,
    Voice,
    check_folder,
    load_acoustics,
    load_language_model,
    save_voices,
    share,
    student_settings,
)
from wandlib.systems.remembered import Remembered
from wandlib.systems.settings import InputError, Settings, check_reference, check_text
from wandlib.systems.sound_file import is_file

__all__ = ["ASSETS", "MiniSystem", "Voice", "save_voices"]

REFERENCE_CODES = 75
"""3 s of the reference go into the prompt, as in training."""
WHOLE_SYMBOLS, PART_SYMBOLS = 100, 70
"""A text of more symbols than the first is spoken in parts of at most the second, cut at punctuation, until a rest of
at most the first is left. In training, a text block of a stream has 46 on average; in blocks of 150 the student loses
its place now and then."""
MAXIMUM_SYMBOLS = 4_000
"""The limit of one piece: more than MAXIMUM_CHARACTERS of prose have. Digits and emoji become many phones each."""
MAXIMUM_TEXT = 500_000
"""Characters of one text: about nine hours of speech."""
WIDEST = 100_000
"""Codes of a window in one cache, which makes room for all of them at once."""
VISIBLE_BLOCKS = 2
"""Text blocks that the window leaves visible in a stream, where the student does not say."""
TEMPERATURE, TOP_K = 0.0, 20
"""Greedy, unless asked otherwise: what this voice learned from says a sentence in one way at a speaking rate."""
ALLOWED = torch.tensor([END, *range(FIRST_CODE, FIRST_CODE + CODES)])
"""What may be generated: the end, or a code."""

NOTHING = "there is nothing to pronounce in the text: write at least one word or number"


class MiniSystem(SpeechSystem):
    """The embedded voice.

    Parameters
    ----------
    codec, vocoder
        Codes to sound.
    teacher
        The language model with full attention.
    student
        The language model for the window; None: the teacher's own weights with the window applied.
    voices
        The built-in speakers.
    window
        Keys of generated codes that the student sees, unless asked otherwise.
    blocks
        Text blocks that it was trained to see in streams, which it then speaks a long text in; None: none.
    """

    name = "mini"
    sample_rate = SAMPLE_RATE
    codes_per_second = CODES_PER_SECOND
    long_in_one_cache = True

    def __init__(
        self,
        codec: Codec,
        vocoder: Vocoder,
        teacher: Qwen2ForCausalLM,
        voices: dict[str, Voice],
        student: Qwen2ForCausalLM | None = None,
        window: int = 32,
        blocks: int | None = None,
    ) -> None:
        self.device = teacher.device
        self.codec, self.vocoder = codec.to(self.device).eval(), vocoder.to(self.device).eval()
        self.voices = {name: voice.to(self.device) for name, voice in voices.items()}
        self.window, self.blocks = window, blocks
        self._log_mel = LogMel().to(self.device)
        self._phonemize = Phonemizer()
        self._recorded = Remembered(lambda recording: self.voice_of(read_reference(recording)))
        # Two modules, so that both can run at once; without a student the second shares the teacher's memory.
        windowed = student if student is not None else share(teacher)
        self.models = {"full": teacher.eval(), "window": convert(windowed.eval(), window=window)}
        """The language model behind each attention: stock transformers models, the second one converted."""

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        student: bool | str | Path = True,
    ) -> MiniSystem:
        """Read ``codec/``, ``teacher/`` and, where there is one, ``student/`` under ``folder`` (None: as shipped).

        Parameters
        ----------
        device
            Where it runs.
        dtype
            Of the language models; None: float32. Codec and vocoder are float32 always.
        student
            False: leave the student out, and apply its window to the teacher's own weights. A folder: the student in
            that folder.

        Raises
        ------
        FileNotFoundError
            Naming the first file that is missing.
        """
        root = check_folder(folder)
        place = root / "student" if isinstance(student, bool) else Path(student)
        settings, trained = student_settings(place), None
        if settings is None and not isinstance(student, bool):
            raise FileNotFoundError(f"no config.json in {place}: give the folder of a student")
        if settings is not None and student is not False:
            trained = load_language_model(place, device, dtype)
        settings = settings or {"window": 32}
        teacher = load_language_model(root / "teacher", device, dtype)
        codec, vocoder, voices = load_acoustics(root)
        return cls(codec, vocoder, teacher, voices, trained, settings["window"], settings.get("blocks"))

    @property
    def speakers(self) -> list[str]:
        return list(self.voices)

    @property
    def language_model(self) -> Qwen2ForCausalLM:
        """The teacher: a stock transformers model with full attention."""
        return self.models["full"]

    @torch.inference_mode()
    def voice(self, reference: str | Path | None = None) -> Voice:
        """Return the voice of a built-in speaker (by name; None: the first) or of an audio file.

        Raises
        ------
        InputError
            For what is no name and no path; and as :func:`wandlib.systems.mini.reference.read_reference` raises it.
        """
        reference = check_reference(reference)
        if reference is None:
            return next(iter(self.voices.values()))
        if isinstance(reference, str) and reference in self.voices:
            return self.voices[reference]
        if isinstance(reference, str) and not Path(reference).suffix and not is_file(Path(reference)):
            raise InputError(
                f"no speaker named {str(reference)!r}: there are {', '.join(self.voices)}, or give an audio file"
            )
        return self._recorded(reference)

    @torch.inference_mode()
    def voice_of(self, samples: NDArray[np.float32]) -> Voice:
        """Return the voice in a waveform at 16 kHz, shape [samples], as :func:`clean_reference` returns it."""
        mel = self._log_mel(torch.from_numpy(samples)[None].to(self.device))
        vector = self.codec.speaker(mel[:, :1000])  # 10 s identify a speaker
        codes = self.codec.encode(mel, vector)[0].tolist()
        # A shorter reference is repeated: in training the prompt always held this many codes.
        return Voice((codes * REFERENCE_CODES)[:REFERENCE_CODES], vector)

    @torch.inference_mode()
    def decode(self, codes: NDArray[np.int64], voice: Voice) -> NDArray[np.float32]:
        """Return the sound of codes, shape [samples]; 640 samples a code."""
        if not len(codes):
            return np.zeros(0, np.float32)
        sound = self.vocoder(self.codec.decode(torch.from_numpy(codes)[None].to(self.device), voice.vector))[0]
        return sound.clamp(-1, 1).cpu().numpy()

    def utterances(
        self, texts: Iterator[str], reference: str | Path | None, settings: Settings, *, streaming: bool
    ) -> Iterator[Utterance]:
        temperature = TEMPERATURE if settings.temperature is None else settings.temperature
        sampler = Sampler(settings.seed, temperature, settings.top_k or TOP_K, allowed=ALLOWED)
        voice, cache, begun = None, self._long_cache(settings), False
        scripts = Counter[str]()
        for text in texts:
            for symbols in self._parts(text, scripts):
                voice = self.voice(reference) if voice is None else voice
                new = text_block(symbols) if begun else prompt(voice.codes, symbols)
                begun = cache is not None
                yield Utterance(
                    model=self.models[settings.attention],
                    prompt=torch.tensor([new], device=self.device),
                    choose=sampler,
                    ends=frozenset({END}),
                    # Speech has two codes a symbol; five are more than any voice needs.
                    limit=25 + 5 * len(symbols),
                    sound=MiniSoundStream(self.codec, self.vocoder, voice.vector),
                    code=lambda token: token - FIRST_CODE,
                    cache=cache,
                )
        if voice is None:
            raise InputError(NOTHING)

    def _long_cache(self, settings: Settings) -> Any:
        """Return the cache of a text that is decoded in one; None: each part has its own."""
        streams = self.blocks is not None and settings.attention == "window"
        if (settings.long or ("one cache" if streams else "parts")) == "parts":
            return None
        window = None if settings.attention == "full" else settings.window or self.window
        if window is not None and window > WIDEST:
            raise InputError(f"one cache holds a window of {WIDEST:,} codes, an hour: attention='full' sees all")
        pinned = len(prompt([0] * REFERENCE_CODES, [])) - len(text_block([]))
        return new_cache(self.models[settings.attention], window, blocks=self.blocks or VISIBLE_BLOCKS, pinned=pinned)

    def count_symbols(self, text: str) -> list[int]:
        """Return the phones, spaces and marks in each part of ``text``: speech has about two codes for each."""
        return [len(part) for part in self.parts(text)]

    def reference_waveform(self, speaker: str) -> NDArray[np.float32] | None:
        """Return the sound of a built-in speaker's own codes."""
        voice = self.voices.get(speaker)
        return None if voice is None else self.decode(np.array(voice.codes), voice)

    def parts(self, text: str) -> list[list[int]]:
        """Return the symbol numbers of ``text``, in the parts that it is spoken in, one text block each.

        Raises
        ------
        InputError
            For a text without anything to pronounce, of more than ``MAXIMUM_TEXT`` characters, or with a piece of more
            than ``MAXIMUM_SYMBOLS``.
        """
        found = self._parts(text, Counter())
        if not found:
            raise InputError(NOTHING)
        return found

    def _parts(self, text: str, scripts: Counter[str]) -> list[list[int]]:
        """Return the parts; none of a text, or of a clause in a stream, that is marks alone: "* * *".

        ``scripts`` counts the letters of the clauses before, and grows: one in another script is read, as it is in a
        whole text.
        """
        if len(check_text(text)) > MAXIMUM_TEXT:
            raise InputError(f"the text has {len(text):,} characters, the limit is {MAXIMUM_TEXT:,}: speak it in parts")
        scripts += scripts_of(text)
        check_script(scripts)
        found: list[list[int]] = []
        for piece in pieces(joined(text) or text, MAXIMUM_CHARACTERS):
            with ONE_READER:
                symbols = self._phonemize.read(piece)
            if len(symbols) > MAXIMUM_SYMBOLS:
                raise InputError(
                    f"{len(piece):,} characters of the text read as {len(symbols):,} phones, the limit is "
                    f"{MAXIMUM_SYMBOLS:,}: write less of it in digits and signs"
                )
            cut = split(symbols, PART_SYMBOLS, WHOLE_SYMBOLS)
            found += ([SYMBOLS.index(symbol) for symbol in part] for part in cut)
        return found
