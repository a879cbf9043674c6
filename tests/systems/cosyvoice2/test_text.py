"""The text front end."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2 import text as front
from wandlib.systems.cosyvoice2.folder import BASE
from wandlib.systems.cosyvoice2.text import CHINESE_MARKS, MARKS, TextFrontend, chinese_marks, split
from wandlib.systems.cosyvoice2.tokenizer import ADDED, TextTokenizer
from wandlib.systems.normalization import written_out


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "find_spec", lambda name: None)


def test_numbers_are_written_out() -> None:
    pytest.importorskip("wetext")
    assert TextFrontend(words)("It costs $3.50.") == ["It costs three point five dollars."]
    assert TextFrontend(words)("今天是2024年5月1日") == ["今天是二零二四年五月一日。"]


@pytest.mark.parametrize("text", ["Two  spaces.", "Two\r\nlines.\n\n", "No  digits, 3 words."])
def test_spaces_in_a_row_are_one(text: str) -> None:
    pytest.importorskip("wetext")
    assert TextFrontend(words)(text) == [" ".join(text.replace("3", "three").split())]


def test_what_wetext_cannot_read() -> None:
    wetext = pytest.importorskip("wetext")
    with pytest.raises(InputError, match=r"wetext cannot read '\? !'"):
        written_out(wetext.Normalizer().normalize, "? !")


def test_absence_of_wetext_is_said(without_extras: None) -> None:
    with pytest.warns(UserWarning, match="wetext is not installed"):
        assert TextFrontend(words)("I have 3.") == ["I have 3."]


def test_words_need_no_extras(without_extras: None) -> None:
    assert TextFrontend(words)("No numbers here") == ["No numbers here."]


@pytest.mark.parametrize("text", ["", "   ", "?!...", "。，", "$ € ©", "\n\t"])
def test_nothing_to_pronounce(text: str) -> None:
    with pytest.raises(InputError, match="nothing to pronounce"):
        TextFrontend(words)(text)


def test_tags_keep_a_text_as_it_is() -> None:
    text = "Be glad<|endofprompt|>It is 5. " * 30
    assert TextFrontend(words)(text) == [text]
    assert TextFrontend(words)("2 < 3. " * 40, normalize=False) == ["2 < 3. " * 40]


def test_long_texts_are_split_between_sentences() -> None:
    sentence = "One two three four five six seven eight nine ten."
    parts = split(" ".join([sentence] * 20), words, MARKS)
    assert "".join(parts) == " ".join([sentence] * 20)
    assert all(60 < words(part) <= 80 for part in parts[:-1])
    assert all(part.endswith(".") for part in parts)


def test_short_rest_joins_the_part_before_it() -> None:
    sentence = "a " * 70
    assert split(f"{sentence}. b c.", words, MARKS) == [f"{sentence}. b c."]


def test_quotation_mark_stays_with_its_sentence() -> None:
    first, second = "x" * 70, "y" * 70
    assert split(f'{first}."{second}', len, MARKS) == [f'{first}."', f"{second}."]


@given(st.text(st.sampled_from(string.ascii_letters + " .?!;:,\"'"), min_size=1, max_size=400))
def test_no_letter_is_lost(text: str) -> None:
    parts = split(text, words, MARKS)
    assert [c for c in "".join(parts) if c.isalpha()] == [c for c in text if c.isalpha()]


@given(st.text(st.sampled_from("中文a b1.²（】—，"), min_size=1, max_size=60))
def test_chinese_text_loses_brackets_and_blanks(text: str) -> None:
    cleaned = chinese_marks(text)
    assert not set(cleaned) & set("（】.²")
    assert [c for c in cleaned if c in "中文ab1"] == [c for c in text if c in "中文ab1"] or "²" in text
    assert "中 文" not in cleaned or "中——文" in text, "a dash becomes a pause"


def test_marks_of_chinese_texts() -> None:
    assert split("你好", len, CHINESE_MARKS) == ["你好。"]
    assert chinese_marks("用 Python 写 hello world，") == "用Python写hello world。"


def test_special_tokens_have_ids_in_order(checkpoint: Path) -> None:
    tokenizer = TextTokenizer(checkpoint / BASE)
    ids: list[Any] = [tokenizer(token) for token in ADDED]
    assert all(len(one) == 1 for one in ids)
    added = [one[0] for one in ids]
    assert added[2:] == list(range(added[2], added[2] + len(added) - 2)), "<|im_start|> and <|im_end|> exist already"
    assert tokenizer.decode(tokenizer("Hello, 你好 [laughter]!")) == "Hello, 你好 !"
