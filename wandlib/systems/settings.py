"""What a caller may set for one utterance, checked once; and the error for everything that cannot be used."""

from __future__ import annotations

import dataclasses
import numbers
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, SupportsIndex, get_args

from wandlib.attention.numbers import whole_number

Attention = Literal["full", "window"]
Long = Literal["one cache", "parts"]
Whole = SupportsIndex | float
"""A whole number in any of the types that carry one: 16, np.int64(16), torch.tensor(16), 16.0."""
_HALF = re.compile("[\ud800-\udfff]")
"""Surrogates, which Python's str holds but no encoding does."""


class InputError(ValueError):
    """Text, reference audio or a setting that cannot be used; the message names the limit and the cure."""


@dataclass(frozen=True)
class Settings:
    """How one utterance is generated. A system with settings of its own extends this class by further fields.

    Annotations are read: a field is an ``int``, a ``float``, a ``bool`` or a ``str``, or else checks itself.

    Attributes
    ----------
    attention
        "full": every key is kept. "window": the prompt and the last ``window`` codes.
    window
        In keys, the query's own included; None: the system's own. Without effect under full attention.
    seed
        Seed of the sampling, 0 to 2**63 - 1.
    temperature
        Temperature of the sampling, 0 (greedy) to 2; None: the system's own.
    top_k
        Sample among this many best codes; None: the system's own.
    long
        How a text of several parts is decoded. "parts": each from a prompt of its own. "one cache": all in one decode,
        where each part's text comes when its turn has come and, under the window, expires later. None: the system's
        own choice.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    attention: Attention = "full"
    window: int | None = None
    seed: int = 0
    temperature: float | None = None
    top_k: int | None = None
    long: Long | None = None

    def __post_init__(self) -> None:
        if self.attention not in get_args(Attention):
            raise InputError(f"attention is 'full' or 'window', not {self.attention!r}")
        if self.window is not None and self.window < 1:
            raise InputError(f"a window holds at least 1 key (the query's own), not {self.window}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"the seed is between 0 and 2**63 - 1, not {self.seed}")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise InputError(f"the temperature is between 0 (greedy) and 2, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is at least 1, not {self.top_k}")
        if self.long is not None and self.long not in get_args(Long):
            raise InputError(f"long is 'one cache' or 'parts', not {self.long!r}")

    @classmethod
    def make(cls, options: dict[str, Any]) -> Settings:
        """Return the settings of these names and values; a value of None is the default.

        Numbers may be of any type: np.int64(16), torch.tensor(16) and 16.0 are 16.

        Raises
        ------
        InputError
            If there is no setting of a name, or a value is of another kind or out of range.
        """
        known = {field.name: str(field.type).partition(" | ")[0] for field in dataclasses.fields(cls)}
        given = {name: value for name, value in options.items() if value is not None}
        for name, value in given.items():
            if name not in known:
                raise InputError(f"there is no setting named {name!r}: there are {', '.join(known)}")
            kind = known[name]
            if kind == "int":
                given[name] = whole_number(value)
                if given[name] is None:
                    raise InputError(f"{name} is a whole number, not {value!r}")
            elif kind == "float":
                if isinstance(value, bool) or not isinstance(value, numbers.Real):
                    raise InputError(f"{name} is a number, not {value!r}")
                try:
                    given[name] = float(value)
                except OverflowError:
                    raise InputError(f"{name} is a number that is far too large") from None
            elif kind in {"bool", "str"} and type(value).__name__ != kind:
                raise InputError(f"{name} is a {kind}, not {value!r}")
            elif kind == "str":
                check_text(value)
        return cls(**given)


def check_text(text: Any) -> str:
    """Return ``text`` if it is a str of whole characters.

    Raises
    ------
    InputError
        If it is no str, or holds half of a character (a lone surrogate, which cannot be encoded) or NUL.
    """
    if not isinstance(text, str):
        raise InputError(f"the text is a str or an iterable of str, not {type(text).__name__}")
    if "\0" in text:  # espeak-ng, for one, would read no further
        raise InputError(
            f"the text holds NUL at position {text.index(chr(0))}: it was read in another encoding than it was written "
            "in, UTF-16 perhaps"
        )
    half = None if text.isascii() else _HALF.search(text)
    if half is not None:
        raise InputError(
            f"the text holds {half.group()!r} at position {half.start()}, half of a character: it was cut inside a "
            "character, or read in another encoding than it was written in; read it as UTF-8"
        )
    return text


def check_reference(reference: Any) -> str | Path | None:
    """Return ``reference`` if it can name a voice: a str, a path or None.

    Raises
    ------
    InputError
        If it is anything else.
    """
    if reference is None or isinstance(reference, str | Path):
        return reference
    if isinstance(reference, os.PathLike):
        return Path(reference)
    raise InputError(
        "a reference is the name of a built-in speaker or the path of an audio file, not "
        f"{type(reference).__name__}: sound in memory is to be written to a file first"
    )


def check_device(device: Any) -> Any:
    """Return ``device`` as a torch device.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    import torch

    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"no device {str(device)!r} here ({reason}): try 'cpu'") from error
    return target
