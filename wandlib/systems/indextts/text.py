"""Text to tokens, in parts: normalization, upper case, sentencepiece, and where a long text is cut.

What a number or a date reads as is the business of ``wetext`` (an optional package; without it such a text is refused).
Around it, names joined by a dot or dash and pinyin with a tone (``xuan4``) are kept from it, and marks are reduced to
those that the vocabulary has.
"""

from __future__ import annotations

import re
import string
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wandlib.systems.base import InputError
from wandlib.systems.normalization import written_out

MOST_TOKENS = 120
"""Of a part, as upstream."""
Normalize = Callable[[str], str]

CHINESE = re.compile("[\u4e00-\u9fff]")
LETTER = re.compile("[a-zA-Z]")
EMAIL = re.compile("[a-zA-Z0-9]+@[a-zA-Z0-9]+[.][a-zA-Z]+")
CONTRACTION = re.compile("(what|where|who|which|how|there|here|it|she|he|that|this)'s", re.IGNORECASE)
NAME = re.compile("[\u4e00-\u9fff]+(?:[-·—][\u4e00-\u9fff]+){1,2}")
INITIALS = "zh ch sh b p m f d t n l g k h j q x z c s r y w".split()
FINALS = (
    "uang üang vang iang iong ang eng ing ong uai uan üan van iao ian ai ei ui ao ou ia io iu ie ua uo ue üe ve an en "
    "in un vn a e i o u ü v"
).split()
PINYIN = re.compile(f"(?<![a-z])(?:(?:{'|'.join(INITIALS)})?(?:{'|'.join(FINALS)})|ng|er)[1-5]", re.IGNORECASE)
"""A syllable with the number of its tone."""
JQX = re.compile("([jqx])[uü]", re.IGNORECASE)

REPLACED = {
    **dict.fromkeys("：；;，、:", ","),
    **dict.fromkeys('“”"‘’（）()《》【】[]「」', "'"),
    **dict.fromkeys("·—～~", "-"),
    **dict.fromkeys(("...", ",,,", "，，，", "……"), "…"),
    "。": ".",
    "！": "!",
    "？": "?",
    "\n": " ",
}
"""Marks that the vocabulary lacks, by what is read in their place."""
MARKS = re.compile("|".join(map(re.escape, sorted(REPLACED, key=len, reverse=True))))
HAN = re.compile(
    "([\u1100-\u11ff\u2e80-\ua4cf\ua840-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff65-\uffdc\U00020000-\U0002ffff])"
)
"""Characters that are words by themselves; the ranges are those of NLTK's tokenizer."""

SENTENCE_ENDS = (".", "!", "?", "▁.", "▁?", "▁...")
FINER = ((",", "▁,"), ("-",))
"""Commas, then dashes."""
QUOTES = ("'", "▁'")


def reads_as_chinese(text: str) -> bool:
    """Whether the Chinese rules read a text: it has Chinese or pinyin, is an address, or has no letter at all."""
    return bool(CHINESE.search(text) or not LETTER.search(text) or EMAIL.fullmatch(text) or PINYIN.search(text))


def load_wetext() -> tuple[Normalize, Normalize] | None:
    """Return normalizers of Chinese and of English text; None where wetext is not installed."""
    try:
        from wetext import Normalizer
    except ModuleNotFoundError:
        return None
    chinese = Normalizer(lang="zh", operator="tn", remove_erhua=False)
    return chinese.normalize, Normalizer(lang="en", operator="tn").normalize


class TextNormalizer:
    """What is read in place of what is written.

    Parameters
    ----------
    normalizers
        Of Chinese and of English text; None: neither, so that a text with digits is refused.
    """

    def __init__(self, normalizers: tuple[Normalize, Normalize] | None) -> None:
        self.normalizers = normalizers

    def __call__(self, text: str) -> str:
        """Return normalized text.

        Raises
        ------
        InputError
            If it needs a normalizer and there is none.
        """
        text = text.replace("嗯", "恩").replace("呣", "母")
        chinese = reads_as_chinese(text)
        text = CONTRACTION.sub(r"\1 is", text)
        if not chinese:
            return MARKS.sub(lambda mark: REPLACED[mark[0]], self._read(text, 1))
        kept: list[str] = []

        def keep(found: re.Match[str]) -> str:
            # A placeholder in letters: digits would be read aloud.
            kept.append(found[0])
            return f"<{'n' if CHINESE.match(found[0]) else 'pinyin'}_{string.ascii_lowercase[len(kept) - 1]}>"

        replaced = _limited(NAME, keep, _limited(PINYIN, keep, text.rstrip(), 13), 13)
        read = self._read(replaced, 0)
        for index, original in enumerate(kept):
            name = CHINESE.match(original)
            marker = f"<{'n' if name else 'pinyin'}_{string.ascii_lowercase[index]}>"
            read = read.replace(marker, original if name else spelled(original))
        return MARKS.sub(lambda mark: REPLACED[mark[0]], read).replace("$", ".")

    def _read(self, text: str, language: int) -> str:
        if self.normalizers is not None:
            return written_out(self.normalizers[language], text)
        if any(character.isdigit() for character in text):
            raise InputError("the text has digits, which the package wetext reads: pip install wetext, or write words")
        return text


def _limited(pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str, most: int) -> str:
    """Replace what ``pattern`` finds, ``most`` times."""
    return pattern.sub(replace, text, count=most)


def spelled(pinyin: str) -> str:
    """Return a syllable as the vocabulary spells it: after j, q and x, u is v; a corrected one is in upper case."""
    if pinyin[0] not in "jqxJQX":
        return pinyin
    return JQX.sub(r"\1v", pinyin).upper()


def words(text: str) -> str:
    """Upper case, Chinese characters apart."""
    return " ".join(part.strip().upper() for part in HAN.split(text.strip()) if part.strip())


class Tokenizer:
    """Text to the tokens of ``bpe.model``.

    Parameters
    ----------
    path
        The sentencepiece model.
    normalizer
        What is read in place of what is written.

    Raises
    ------
    ImportError
        Where sentencepiece is missing.
    """

    def __init__(self, path: Path, normalizer: TextNormalizer) -> None:
        try:
            import sentencepiece
        except ModuleNotFoundError as error:
            raise ImportError("IndexTTS needs sentencepiece: pip install 'wandlib[indextts]'") from error
        self._pieces: Any = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self._normalizer = normalizer

    def pieces(self, text: str) -> list[str]:
        """Tokens as strings; a text of one character is not normalized."""
        if len(text.strip()) != 1:
            text = words(self._normalizer(text))
        found: list[str] = self._pieces.encode(text, out_type=str)
        return found

    def parts(self, text: str, most: int = MOST_TOKENS) -> list[list[int]]:
        """Tokens of each part of a text, at most ``most`` in each.

        Raises
        ------
        InputError
            If there is nothing to say, or if it needs a normalizer that is not installed.
        """
        if not any(character.isalnum() for character in text):
            raise InputError(f"the text {text[:20]!r} has nothing to say: write a sentence")
        return [[self._pieces.piece_to_id(piece) for piece in part] for part in split(self.pieces(text), most)]


def split(
    pieces: Sequence[str], most: int, marks: Sequence[str] = SENTENCE_ENDS, finer: Sequence[Sequence[str]] = FINER
) -> list[list[str]]:
    """Parts of at most ``most`` tokens, cut at ``marks``; where none comes in time at ``finer`` ones or anywhere.

    Neighbors that fit together are joined again.
    """
    parts: list[list[str]] = []
    current: list[str] = []
    for index, piece in enumerate(pieces):
        current.append(piece)
        count = len(current)
        if count <= most:
            if piece in marks and count > 2:
                # A quote after the mark is given to this part and to the next: upstream does so.
                parts.append([*current, *(quote for quote in pieces[index + 1 : index + 2] if quote in QUOTES)])
                current = []
            continue
        # A mark is tried once: upstream goes back and forth between two that are no help, until Python stops it.
        use = next((index for index, marks in enumerate(finer) if set(marks) & set(current)), None)
        if use is not None:
            parts += split(current, most, finer[use], finer[use + 1 :])
        else:
            warnings.warn(f"{most} tokens without a mark to cut at: cut in mid-sentence", RuntimeWarning, stacklevel=2)
            parts += [current[start : start + most] for start in range(0, count, most)]
        current = []
    joined: list[list[str]] = []
    for part in (*parts, current):
        if joined and len(joined[-1]) + len(part) <= most:
            joined[-1] = joined[-1] + part
        elif part:
            joined.append(part)
    return joined
