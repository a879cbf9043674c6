"""What counts as a whole number: without torch, so that settings are checked before it is there."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

import numpy as np


def whole_number(value: Any) -> int | None:
    """Return ``value`` as an int if it is a whole number of any type (also 16.0), else None; True is no number."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)
    except TypeError:
        number = float(value) if isinstance(value, numbers.Real) else math.nan
        return int(number) if number.is_integer() else None
