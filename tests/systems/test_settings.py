"""Settings: whole numbers of every type, one error for everything else; text that is whole characters."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from fake_system import FakeSystem

from wandlib.attention.numbers import whole_number
from wandlib.systems import InputError
from wandlib.systems.clauses import clauses
from wandlib.systems.settings import Settings, check_device, check_text


@pytest.mark.parametrize(
    "value", [16, np.int64(16), np.uint8(16), 16.0, np.float32(16), torch.tensor(16), Fraction(32, 2), np.array(16)]
)
def test_whole_numbers_of_every_type(value: Any) -> None:
    found = Settings.make({"attention": "window", "window": value, "seed": value, "top_k": value})
    assert found == Settings("window", window=16, seed=16, top_k=16)
    assert {type(found.window), type(found.seed), type(found.top_k)} == {int}


@pytest.mark.parametrize("value", [16.5, "16", True, np.True_, [16], math.nan, math.inf, 1j, np.array([1, 2]), b"16"])
def test_what_is_no_whole_number(value: Any) -> None:
    assert whole_number(value) is None
    for name in ("window", "seed", "top_k"):
        with pytest.raises(InputError, match=f"^{name} is a whole number, not {re.escape(repr(value))}"):
            Settings.make({name: value})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": 0}, "at least 1 key"),
        ({"window": np.int64(-3)}, "at least 1 key"),
        ({"seed": -1}, "the seed is between 0"),
        ({"seed": 2**63}, "9223372036854775808"),
        ({"top_k": 0}, "top_k is at least 1, not 0"),
        ({"temperature": 2.1}, "between 0 .greedy. and 2, not 2.1"),
        ({"temperature": math.nan}, "not nan"),
        ({"temperature": 10**400}, "temperature is a number that is far too large"),
        ({"temperature": "hot"}, "temperature is a number, not 'hot'"),
        ({"temperature": True}, "not True"),
    ],
)
def test_what_is_out_of_range(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Settings.make(settings)


def test_none_is_the_default() -> None:
    given = {"attention": "full", "window": None, "seed": None, "temperature": np.float32(0.5)}
    assert Settings.make(given) == Settings(temperature=0.5)


def test_a_setting_that_there_is_not() -> None:
    with pytest.raises(InputError, match="no setting named 'speed': there are attention, window, seed"):
        FakeSystem().synthesize("one", speed=2)
    assert FakeSystem().synthesize("one", speed=None).codes.size  # not set


def test_synthesize_takes_what_is_whole() -> None:
    system = FakeSystem()
    system.synthesize("one", attention="window", window=np.int64(6), seed=3.0)
    assert (system.requests[0]["window"], system.requests[0]["seed"]) == (6, 3)


@pytest.mark.parametrize("text", ["A caf\udce9 in town.", "\ud83d", "fine \U0001f600 but \ude00 not"])
def test_half_of_a_character_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"holds '\\ud.*half of a character"):
        check_text(text)
    with pytest.raises(InputError, match="half of a character"):
        FakeSystem().synthesize(text)
    with pytest.raises(InputError, match="half of a character"):
        list(FakeSystem().stream(["One sentence. ", text]))


@pytest.mark.parametrize("text", [b"bytes", 7, None])
def test_what_is_no_text(text: Any) -> None:
    refusal = f"the text is a str or an iterable of str, not {type(text).__name__}"
    with pytest.raises(InputError, match=refusal):
        check_text(text)
    with pytest.raises(InputError, match=refusal):
        list(clauses(item for item in [text]))


@pytest.mark.parametrize("device", ["nonsense", "cuda:77", "cpux"])
def test_a_device_that_is_not_here(device: str) -> None:
    with pytest.raises(InputError, match=f"no device '{device}' here"):
        check_device(device)
    assert check_device("cpu") == torch.device("cpu")
