"""The text front end: what a text is read as, and the parts that it is spoken in.

Chinese and other texts have their own rules, as published. Numbers, dates, units and abbreviations are written out by
``wetext`` and ``inflect`` (``pip install 'wandlib[cosyvoice-text]'``); without them digits reach the tokenizer as they
are, and a warning says so. A text with tags, ``<|`` and ``|>``, is taken as it is, in one part: that is how special
tokens are given.

Source: the rules of CosyVoice 2's published front end.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from wandlib.systems.base import InputError
from wandlib.systems.normalization import written_out

CHINESE = re.compile("[\u4e00-\u9fff]")
MARKS = ".?!;:"
CHINESE_MARKS = "。？！；：、.?!;"
LONGEST, SHORTEST, MERGED = 80, 60, 20
"""A part that would pass LONGEST ends, if it has more than SHORTEST; a last one below MERGED joins the one before it.

In tokens; in characters where the text is Chinese."""
INSTALL = "pip install 'wandlib[cosyvoice-text]'"


class TextFrontend:
    """Read a text as parts, one prompt each.

    Parameters
    ----------
    count
        The number of tokens of a text.
    """

    def __init__(self, count: Callable[[str], int]) -> None:
        self.count = count
        self.normalizers: dict[str, Any] = {}

    def __call__(self, text: str, *, normalize: bool = True) -> list[str]:
        """Return the parts of ``text``.

        Parameters
        ----------
        text
            What to say.
        normalize
            False: take it as it is, in one part.

        Raises
        ------
        InputError
            If there is nothing to pronounce in it.
        """
        if not pronounceable(text):
            raise InputError(f"there is nothing to pronounce in {text[:40]!r}: write words")
        if not normalize or has_tags(text):
            return [text]
        chinese = bool(CHINESE.search(text))
        text = self.normalize(text)
        parts = split(text, len if chinese else self.count, CHINESE_MARKS if chinese else MARKS)
        return [part for part in parts if pronounceable(part)]

    def normalize(self, text: str) -> str:
        """Return ``text`` with everything written out as it is read; with tags in it, as it is."""
        text = text.strip()
        if has_tags(text) or not text:
            return text
        if CHINESE.search(text):
            return chinese_marks(self.written_out(text, "zh"))
        return self.spelled(self.written_out(text, "en"))

    def written_out(self, text: str, language: str) -> str:
        """Return ``text`` after wetext's rules, where it is installed."""
        if find_spec("wetext") is None:
            if any(character.isdigit() for character in text):
                warnings.warn(
                    f"wetext is not installed: digits are read as the model sees fit; {INSTALL}", stacklevel=2
                )
            return text
        if language not in self.normalizers:
            from wetext import Normalizer

            self.normalizers[language] = Normalizer(remove_erhua=False) if language == "zh" else Normalizer()
        return written_out(self.normalizers[language].normalize, text)

    def spelled(self, text: str) -> str:
        """Return ``text`` with the digits that are left as English words, where inflect is installed."""
        if find_spec("inflect") is None or not any(character.isdigit() for character in text):
            return text
        if "inflect" not in self.normalizers:
            import inflect

            self.normalizers["inflect"] = inflect.engine()
        return re.sub(r"\d+", lambda digits: str(self.normalizers["inflect"].number_to_words(digits[0])), text)


def has_tags(text: str) -> bool:
    """Whether special tokens may be written in the text."""
    return "<|" in text and "|>" in text


def pronounceable(text: str) -> bool:
    """Whether there is more in the text than spaces, punctuation and symbols."""
    return any(unicodedata.category(character)[0] not in "PSZC" for character in text)


def chinese_marks(text: str) -> str:
    """Return Chinese text without line breaks, brackets and spaces (those between two ASCII words stay)."""
    text = text.replace("\n", "")
    text = re.sub(r"(?<![\x00-\x1f\x21-\x7f]) | (?![\x00-\x1f\x21-\x7f])", "", text)
    for old, new in (("²", "平方"), ("³", "立方"), (".", "。"), (" - ", "，"), ("——", " ")):
        text = text.replace(old, new)
    text = re.sub("[（）【】`]", "", text)
    return re.sub("[，,、]+$", "。", text)


def split(text: str, count: Callable[[str], int], marks: str) -> list[str]:
    """Return sentences joined to parts of about ``SHORTEST`` to ``LONGEST``.

    Parameters
    ----------
    text
        Not empty; a mark is put at its end if there is none.
    count
        The length of a text.
    marks
        What ends a sentence; a quotation mark after it belongs to it.
    """
    if text[-1] not in marks:
        text += "。" if marks == CHINESE_MARKS else "."
    sentences: list[str] = []
    ends = re.escape(marks)
    for body, mark, quote in re.findall(f'([^{ends}]*)([{ends}])(["”]?)', text):
        if body:
            sentences.append(body + mark + quote)
        elif sentences:
            sentences[-1] += quote
    parts: list[str] = []
    part = ""
    for sentence in sentences:
        if count(part + sentence) > LONGEST and count(part) > SHORTEST:
            parts.append(part)
            part = ""
        part += sentence
    if parts and count(part) < MERGED:
        parts[-1] += part
    elif part:
        parts.append(part)
    return parts
