"""What a caller may set for one utterance, checked once; and the error for everything that cannot be used."""

from __future__ import annotations

import dataclasses
import numbers
import operator
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, get_args

Attention = Literal["full", "window"]
Whole = SupportsIndex | float
"""A whole number in any of the types that carry one: 16, np.int64(16), torch.tensor(16), 16.0."""


class InputError(ValueError):
    """Text, reference audio or a setting that cannot be used; the message names the limit and the cure."""


@dataclass(frozen=True)
class Settings:
    """How one utterance is generated. A system with settings of its own extends this class by further fields.

    Attributes
    ----------
    attention
        "full": every key is kept. "window": the prompt and the last ``window`` codes.
    window
        In keys, the query's own included; None: the system's own. Without effect under full attention.
    seed
        Seed of the sampling, 0 to 2**63 - 1; None is 0.
    temperature
        Temperature of the sampling, 0 (greedy) to 2; None: the system's own.
    top_k
        Sample among this many best codes; None: the system's own.

    Raises
    ------
    InputError
        If a value is out of its range, or no number.
    """

    attention: Attention = "full"
    window: int | None = None
    seed: int = 0
    temperature: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.attention not in get_args(Attention):
            raise InputError(f"attention is 'full' or 'window', not {self.attention!r}")
        window = self.whole("window", "a window holds at least 1 key (the query's own), not {}", least=1)
        seed = self.whole("seed", "the seed is a whole number from 0 to 2**63 - 1, not {}", most=2**63 - 1)
        top_k = self.whole("top_k", "top_k is at least 1, not {}", least=1)
        temperature = self.real("temperature", "the temperature is between 0 (greedy) and 2, not {}", most=2.0)
        for name, value in (("window", window), ("seed", seed or 0), ("top_k", top_k), ("temperature", temperature)):
            object.__setattr__(self, name, value)

    def whole(self, name: str, refusal: str, *, least: int = 0, most: int | None = None) -> int | None:
        """Return the field as an int; None stays None.

        Raises
        ------
        InputError
            With ``refusal``, which holds ``{}`` for the value, if it is no whole number or out of range.
        """
        value = getattr(self, name)
        number = whole(value)
        if value is not None and (number is None or number < least or (most is not None and number > most)):
            raise InputError(refusal.format(repr(value)))
        return number

    def real(self, name: str, refusal: str, *, least: float = 0.0, most: float) -> float | None:
        """Return the field as a float; None stays None.

        Raises
        ------
        InputError
            With ``refusal``, which holds ``{}`` for the value, if it is no number or out of range.
        """
        value = getattr(self, name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not least <= value <= most:
            raise InputError(refusal.format(repr(value)))
        return float(value)

    @classmethod
    def make(cls, options: dict[str, Any]) -> Settings:
        """Return the settings of these names and values.

        Raises
        ------
        InputError
            If there is no setting of a name; a name with the value None is left out.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        given = {name: value for name, value in options.items() if name in known or value is not None}
        for name in given:
            if name not in known:
                raise InputError(f"there is no setting named {name!r}: there are {', '.join(known)}")
        return cls(**given)


def whole(value: Any) -> int | None:
    """Return ``value`` as an int if it is a whole number, of whatever type; None if not. True is no number."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, numbers.Real) and float(value).is_integer():
            return int(value)
        return None


def check_text(text: Any) -> str:
    """Return ``text`` if it is a str of whole characters.

    Raises
    ------
    InputError
        If it is no str, or holds half of a character (a lone surrogate, which cannot be encoded).
    """
    if not isinstance(text, str):
        raise InputError(f"the text is a str or an iterable of str, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise InputError(
            f"the text holds {half!r} at position {error.start}, half of a character: it was cut inside a character, "
            "or read in another encoding than it was written in; read it as UTF-8"
        ) from error
    return text


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
