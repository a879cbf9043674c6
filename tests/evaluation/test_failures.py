"""Failures: each rule at its bound, and none in what the embedded voice says well."""

from __future__ import annotations

import numpy as np
import pytest

from wandlib.evaluation.failures import (
    CHARACTERS,
    KINDS,
    Pace,
    codes_loop,
    count_characters,
    failures,
    longest_match,
    words_loop,
)
from wandlib.systems.base import Speech, Trace

RATE = 25.0
RNG = np.random.default_rng(0)


def speech(codes: int | list[int], text: str = "a" * 50, finish: str = "end", parts: list[int] | None = None) -> Speech:
    """An utterance without sound; codes given by number do not repeat."""
    tokens = list(range(codes)) if isinstance(codes, int) else codes
    trace = Trace("full", None, 10, parts=[len(tokens)] if parts is None else parts, finish=finish)  # type: ignore[arg-type]
    return Speech(np.zeros(0, np.float32), 16_000, np.array(tokens, dtype=np.int64), trace, text)


def test_bounds_of_phones() -> None:
    """1.1 to 2.8 codes a symbol at 25 codes a second, and 22 codes of silence."""
    assert failures(speech(109), RATE, [100]) == ["early stop"]
    assert failures(speech(110), RATE, [100]) == []
    assert failures(speech(302), RATE, [100]) == []
    assert failures(speech(303), RATE, [100]) == ["runaway"]


def test_bounds_of_characters() -> None:
    fewest, most = int(RATE * CHARACTERS.least * 50), int(RATE * (CHARACTERS.most * 50 + CHARACTERS.slack))
    assert failures(speech(fewest), RATE) == failures(speech(most), RATE) == []
    assert failures(speech(fewest - 1), RATE) == ["early stop"]
    assert failures(speech(most + 1), RATE) == ["runaway"]


def test_each_part_is_judged() -> None:
    """30 codes too few in one part are not made good by another."""
    assert failures(speech(200, parts=[100, 100]), RATE, [50, 50]) == []
    assert failures(speech(200, parts=[170, 30]), RATE, [50, 50]) == ["runaway", "early stop"]
    with pytest.raises(ValueError, match="symbols of 1 parts, but codes of 2"):
        failures(speech(200, parts=[170, 30]), RATE, [50])


def test_no_end_is_not_a_runaway_as_well() -> None:
    assert failures(speech(900, finish="limit"), RATE, [100]) == ["no end"]


def test_a_pace_of_ones_own() -> None:
    assert failures(speech(100), RATE, [100], pace=Pace(0.0, 0.03, 0.0)) == ["runaway"]


def test_repetition_is_seen_in_codes_and_in_words() -> None:
    text = "the cat sat on the mat and looked"
    looping = [*range(20), *[7, 8, 9] * 13, *range(30, 40)]
    assert failures(speech(looping, text), RATE) == ["repetition"]
    assert failures(speech(60, text), RATE, heard="the cat sat on the mat on the mat on the mat") == ["repetition"]
    assert failures(speech(60, text), RATE, heard=text) == []
    assert set(failures(speech(looping * 9, text, "limit"), RATE)) == {"no end", "repetition"} <= set(KINDS)
    thrice = "Don’t, don’t, don’t go there!"
    assert failures(speech(60, thrice), RATE, heard=thrice.replace("’", "'")) == []


@pytest.mark.parametrize(
    ("codes", "loops"),
    [
        ([5] * 37, False),  # 1.48 s
        ([5] * 38, True),
        ([1, 2, 3, 4] * 10, True),
        (list(range(40)) * 2, False),  # twice is a repeated word
        (list(range(40)) * 3, True),
        (list(range(101)) * 3, False),  # 4.04 s: longer than what may loop
        ([], False),
    ],
)
def test_codes_loop(codes: list[int], loops: bool) -> None:
    assert codes_loop(codes, RATE) is loops


def test_no_loop_in_noise() -> None:
    assert not codes_loop(RNG.integers(0, 512, size=2000).tolist(), RATE)


@pytest.mark.parametrize(
    ("heard", "text", "loops"),
    [
        ("no no no", "no", True),
        ("no no", "no", False),
        ("no no no", "no no", False),  # once more than the text has is a mishearing
        ("a b c a b c a b c", "a b c", True),
        ("", "", False),
    ],
)
def test_words_loop(heard: str, text: str, loops: bool) -> None:
    assert words_loop(heard, text) is loops


def test_longest_match_by_hand() -> None:
    assert longest_match("abcabcab", 3) == 5
    assert longest_match("abcabcab", 1) == 0
    assert longest_match("", 2) == 0


def test_count_characters_by_how_long_they_are_to_say() -> None:
    assert count_characters("  two \n words ") == 9
    assert count_characters("in 42") == 3 + 2 * 5
    assert count_characters("你好") == 8
