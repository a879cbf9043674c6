"""Sentences with what dictionaries and novels lack: figures, dates, money, abbreviations, questions, lists, dialogue.

Patterns of our own with slots that are filled at random. Figures stay figures: Kokoro and the embedded voice read the
same text by the same rules.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
TITLES = "Mr. Mrs. Ms. Dr. Prof. Capt. Lt. Gen. Rev.".split()
SURNAMES = (
    "Smith Jones Miller Baker Turner Walker Hughes Carter Morgan Bennett Foster Graham Hayes Palmer Reed Sullivan "
    "Warren Young Clarke Dawson Ellis Fletcher Gibson Harper Irwin Kennedy Lawson Murphy Norton Oliver Parker Quinn "
    "Roberts Stevens Taylor Underwood Vaughan Wallace"
).split()
FIRST_NAMES = (
    "Alice Ben Clara David Emily Frank Grace Henry Irene Jack Kate Leo Maria Nina Oscar Paula Quentin Rose Sam Tina "
    "Victor Wendy Adam Sophie Daniel Laura Peter Hannah Martin Julia Simon Olivia"
).split()
PLACES = (
    "London Paris New_York Boston Chicago Dublin Edinburgh Toronto Sydney Berlin Madrid Rome Oslo Cairo Tokyo Denver "
    "Seattle Manchester Bristol Cambridge Oxford Houston Atlanta Vienna Lisbon Prague Glasgow Cardiff Geneva Stockholm"
).split()
INITIALS = "FBI BBC USA UK EU CEO GPS DVD PDF URL TV PC ATM VIP FAQ DIY UFO MRI DNA AI HTML USB NHS IBM".split()
UNITS = (
    "miles kilometers pounds grams liters gallons feet inches meters minutes hours seconds degrees percent acres tons"
).split()
THINGS = (
    "apples letters people books tickets chairs houses boxes cars trees bottles windows birds questions answers shoes "
    "stamps coins photographs keys bridges lamps messages files pages islands students engines"
).split()
SINGLES = (
    "train bus meeting lecture film concert parcel letter report kitchen garden bridge window camera laptop ticket "
    "doctor teacher neighbor engine river station library market museum password battery sandwich umbrella bicycle"
).split()
PATTERNS = (Path(__file__).parent / "templates.txt").read_text(encoding="utf-8").splitlines()
"""Patterns of our own: figures, dates and times, money, abbreviations, questions, lists, everyday speech, dialogue."""


def fill(pattern: str, rng: random.Random) -> str:
    """Fill every slot of a pattern; the first letter becomes a capital."""
    text = re.sub(r"\{(\w+)\}", lambda match: SLOTS[match.group(1)](rng), pattern)
    text = text.replace("_", " ")
    return text[0].upper() + text[1:]


def template(rng: random.Random) -> str:
    """One sentence."""
    return fill(rng.choice(PATTERNS), rng)


def _number(rng: random.Random) -> str:
    value = rng.choice((rng.randrange(20), rng.randrange(100), rng.randrange(1000), rng.randrange(10_000)))
    if rng.random() < 0.15:
        value = rng.randrange(1, 1000) * rng.choice((1000, 10_000, 100_000))
    return f"{value:,}" if value >= 10_000 or (value >= 1000 and rng.random() < 0.7) else str(value)


def _money(rng: random.Random) -> str:
    sign, whole = rng.choice("$$$£€"), rng.choice((rng.randrange(1, 20), rng.randrange(1, 100), rng.randrange(1, 5000)))
    return f"{sign}{whole:,}" + (f".{rng.randrange(10, 100)}" if rng.random() < 0.5 else "")


def _time(rng: random.Random) -> str:
    hour, minute = rng.randrange(1, 13), rng.randrange(10, 60)
    form = rng.choice(
        ("{h}:{m}", "{h}:{m}", "{h} o'clock", "half past {h}", "quarter to {h}", "{h} a.m", "{h}:{m} p.m")
    )
    return form.format(h=hour, m=minute)


def _ordinal(rng: random.Random) -> str:
    day = rng.randrange(1, 32)
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day // 10 != 1 else 0, "th")
    return f"{day}{ending}"


SLOTS: dict[str, Callable[[random.Random], str]] = {
    "number": _number,
    "small": lambda rng: str(rng.randrange(2, 60)),
    "digit": lambda rng: str(rng.randrange(10)),
    "hundred": lambda rng: str(rng.randrange(100, 1000)),
    "percent": lambda rng: str(rng.randrange(1, 100)),
    "decimal": lambda rng: f"{rng.randrange(100)}.{rng.randrange(1, 10)}",
    "phone": lambda rng: f"{rng.randrange(200, 999)} {rng.randrange(100, 999)} {rng.randrange(1000, 9999)}",
    "money": _money,
    "time": _time,
    "ordinal": _ordinal,
    "dom": lambda rng: str(rng.randrange(1, 32)),
    "year": lambda rng: str(rng.choice((rng.randrange(1700, 2000), rng.randrange(1900, 2030)))),
    "day": lambda rng: rng.choice(DAYS),
    "month": lambda rng: rng.choice(MONTHS),
    "title": lambda rng: rng.choice(TITLES),
    "surname": lambda rng: rng.choice(SURNAMES),
    "first": lambda rng: rng.choice(FIRST_NAMES),
    "place": lambda rng: rng.choice(PLACES),
    "initials": lambda rng: rng.choice(INITIALS),
    "units": lambda rng: rng.choice(UNITS),
    "things": lambda rng: rng.choice(THINGS),
    "single": lambda rng: rng.choice(SINGLES),
}
