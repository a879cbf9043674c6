"""What people write in one way and say in another: figures, abbreviations, signs, lines.

espeak-ng reads plain words and numbers well. What it spells out, or reads as no speaker would, is written out before:
a rule is a pattern and what is said in its place, and the rules apply in their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from wandlib.systems.abbreviations import COUNTED, DAYS, MONTH_NAMES, MONTHS, PLACES, TITLES

Spoken = str | Callable[[re.Match[str]], str]

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_UNIT = {
    "km/h": "kilometers per hour", "kph": "kilometers per hour", "mph": "miles per hour", "m/s": "meters per second",
    "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "mi": "miles", "yd": "yards",
    "ft": "feet", "kg": "kilograms", "mg": "milligrams", "g": "grams", "lb": "pounds", "lbs": "pounds", "oz": "ounces",
    "ml": "milliliters", "mL": "milliliters", "l": "liters", "L": "liters", "h": "hours", "hr": "hours", "hrs": "hours",
    "min": "minutes", "mins": "minutes", "sec": "seconds", "secs": "seconds", "ms": "milliseconds",
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "kB": "kilobytes", "KB": "kilobytes",
    "MB": "megabytes", "GB": "gigabytes", "TB": "terabytes", "kW": "kilowatts", "kWh": "kilowatt hours",
}  # fmt: skip
_ONE = {"feet": "foot", "hertz": "hertz", "kilohertz": "kilohertz", "megahertz": "megahertz", "gigahertz": "gigahertz"}
_PART = {
    2: "half", 3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth", 9: "ninth", 10: "tenth",
    12: "twelfth", 16: "sixteenth", 20: "twentieth", 32: "thirty-second", 64: "sixty-fourth",
}  # fmt: skip
_DECADES = ("hundreds", "tens", *"twenties thirties forties fifties sixties seventies eighties nineties".split())
_CURRENCY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_MAGNITUDE = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion", "tn": "trillion"}
_RULERS = "Charles|Edward|Frederick|George|Gustav|Henry|James|John|Leo|Louis|Ludwig|Paul|Philip|Pius"
"""Whose fifth or tenth has one letter: other names with one are of people, as Malcolm X."""
_IN_PARTS = (
    "Act|Apollo|Appendix|Article|Book|Bowl|Chapter|Class|Fantasy|Figure|Grade|Level|Mark|Part|Phase|Psalm|Rocky|Saturn|"
    "Scene|Section|Stage|Table|Title|Type|Vatican|Volume|War|Wars"
)
_ROMAN = r"(?=[IVXLC]+\b)((?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}))(?<=[IVXLC])\b"
_SIGN = "[\U0001f300-\U0001f3fa\U0001f400-\U0001faff\u2600-\u27bf]"
"""Pictures, but the tones of skin."""


def _table(names: dict[str, str]) -> str:
    """Return a pattern of names, the longest first."""
    return "|".join(sorted(map(re.escape, names), key=len, reverse=True))


def _roman(digits: str) -> int:
    """Return the value of a Roman numeral."""
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[digit] for digit in digits]
    return sum(-one if one < two else one for one, two in zip(values, [*values[1:], 0], strict=True))


def _ordinal(number: int) -> str:
    return f"{number}{'th' if 10 < number % 100 < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def _counted(number: str) -> str:
    """Return a number that counts something, so that it is not taken for a year."""
    return f"{int(number):,}" if number.isdecimal() and len(number) == 4 else number


def _round_ordinal(match: re.Match[str]) -> str:
    """Of a multiple of a hundred espeak-ng reads the ending as a word of its own."""
    number = int(match.group(1).replace(",", ""))
    for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if number and number % size == 0:
            return f"{number // size} {name}th"
    return match.group()


def _year(match: re.Match[str]) -> str:
    century, years = match.groups()
    return (
        f"{century} hundred" if years == "00" else f"{century} oh {years[1]}" if years < "10" else f"{century} {years}"
    )


def _decade(match: re.Match[str]) -> str:
    century, ten = match.group(1) or "", int(match.group(2))
    if century in ("10", "20") and not ten:
        return f"{int(century) // 10} thousands"
    return f"{century} {_DECADES[ten]}".strip() if century or ten > 1 else match.group()


def _date(match: re.Match[str]) -> str:
    year, month, day = match.group("year"), int(match.group("month")), int(match.group("day"))
    if month > 12 >= day and "/" in match.group():
        month, day = day, month
    return f"{MONTH_NAMES[month - 1]} {_ordinal(day)}, {year}" if 1 <= month <= 12 and 1 <= day <= 31 else match.group()


def _hour(match: re.Match[str]) -> str:
    hour, half = match.groups()
    return f"{int(hour)} {half}" if half else f"{int(hour)} o'clock"


def _fraction(match: re.Match[str]) -> str:
    whole, part, of = match.group(1), int(match.group(2)), int(match.group(3))
    if of not in _PART or part >= of:
        return match.group().replace("/", " over " if part == 1 else " ")
    name = _PART[of] if part == 1 else "halves" if of == 2 else f"{_PART[of]}s"
    return f"{whole} and {part} {name}" if whole else f"{part} {name}"


def _with_unit(match: re.Match[str]) -> str:
    number, unit, letter, power = match.groups()
    name = _UNIT[unit] if unit else {"m": "meters", "s": "seconds"}[letter]
    if number == "1":
        first, *rest = name.split(" ", 1)
        name = " ".join([_ONE.get(first, first.removesuffix("s")), *rest])
    return f"{_counted(number)} {({'²': 'square ', '³': 'cubic '}).get(power, '')}{name}"


def _amount(match: re.Match[str]) -> str:
    """People say the sign last: $42.50 is 42 dollars 50, $1.5m is 1.5 million dollars."""
    sign, number, magnitude = match.groups()
    unit = _CURRENCY[sign][0]
    if magnitude:
        name = magnitude.strip(" -").lower()
        return f"{number} {_MAGNITUDE.get(name, name)} {unit}s"
    whole, _, cents = number.partition(".")
    if len(cents) != 2:
        whole, cents = number, ""
    return f"{_counted(whole)} {unit}{'' if whole == '1' else 's'} {'' if cents == '00' else cents}".rstrip()


def _coins(match: re.Match[str]) -> str:
    name = _CURRENCY[match.group(1)][1]
    return f"{int(match.group(2))} {'pence' if name == 'penny' else name + 's'}"


def _telephone(match: re.Match[str]) -> str:
    return ", ".join(" ".join(group) for group in re.findall(r"\d+", match.group()))


def _digits(match: re.Match[str]) -> str:
    """Past a billion espeak-ng does not count, and of many digits in a row it reads the first ones alone."""
    return " ".join(match.group().replace(".", "p")).replace("p", "point")


def _loosened(match: re.Match[str]) -> str:
    """Of a very long word espeak-ng reads the start alone."""
    return re.sub(r"(?<=[/\\|_=&+*%@~-])(?=\w)", " ", match.group())


_RULES: list[tuple[str, Spoken]] = [
    # Markdown, which language models write.
    (r"\[([^\[\]]{1,200})\]\(https?://[^()\s]{1,500}\)", r"\1"),
    *2 * [(r"(?<![\w*_~`])(\*{1,3}|_{1,3}|~~|`{1,3})(?=[^\s*_~`])([^*_~`]{1,500})(?<=\S)\1(?!\w)", r"\2")],
    # Of emphasis whose other end is in another clause of a stream.
    (r"^([\"'“‘(]?)(?:\*{2,3}|_{2,3}|~~)(?=\w)", r"\1"),
    (r"(?<=[\w.,;:!?…])(?:\*{2,3}|_{2,3}|~~)(?=[\"'”’).,;:!?]*$)", ""),
    (r"(?<=[.!?,;:\"'])(?:\[\d{1,3}\]|[⁰¹²³⁴⁵⁶⁷⁸⁹]+)(?=\s|$)", ""),
    # Abbreviations; the point stays where it may end the sentence.
    (r"\be\.\s?g\.,?", "for example"),
    (r"\bi\.\s?e\.,?", "that is"),
    (r"\bvs\.?(?=\s)", "versus"),
    (r"\bapprox\.(?=\s)", "approximately"),
    (r"\bca\.\s*(?=\d)", "circa "),
    (r"\bw/o\b", "without"),
    (r"\bPh\.\s?D(?:\.(?=[,;)]|\s+[a-z])|\b)", "P H D"),
    (r"\betc\.(?=[,;:)]|\s+[a-z])", "etc"),
    (r"\bet al\.(?=\s+[a-z(])", "et al"),
    (r"\bcf\.(?=\s)", "compare"),
    (rf"\b({_table(TITLES)})\.(?=\s+[A-Z])", lambda m: TITLES[m.group(1)]),
    (r"(?<=[a-z\d] )St\.(?=[,;:)]|\s+[a-z]|$)", "Street"),
    (rf"(?<=[A-Za-z\d&] )({_table(PLACES)})\.(?=[,;:)]|\s+[a-z])", lambda m: PLACES[m.group(1)]),
    (rf"(?<=[A-Za-z\d&] )({_table(PLACES)})\.(?=\s|$)", lambda m: PLACES[m.group(1)] + "."),
    (rf"\b({_table(MONTHS)})\.?(?=\s+\d)", lambda m: MONTHS[m.group(1)]),
    (rf"(?<=\d )({_table(MONTHS)})\b\.?(?!\w)", lambda m: MONTHS[m.group(1)]),
    (rf"\b({_table(DAYS)})\.?(?=,?\s+(?:\d|{'|'.join(MONTH_NAMES)}))", lambda m: DAYS[m.group(1)]),
    (rf"\b(?i:({_table(COUNTED)}))\.\s?(?=\d)", lambda m: COUNTED[m.group(1).lower()] + " "),
    # Roman numerals: World War II, Henry VIII, factor XI; but not the pronoun, grade C, and an IV drip.
    (rf"\b({_IN_PARTS}) (?!I [a-z]|[LC]\b){_ROMAN}(?!\.\w)", lambda m: f"{m.group(1)} {_roman(m.group(2))}"),
    (
        rf"\b((?!(?:The|An?|In|On|At|Of|To|For|And)\b)[A-Z][a-z]+) (?=I[IVX]|VI|X[IV]){_ROMAN}(?!\.\w)",
        lambda m: f"{m.group(1)} the {_ordinal(_roman(m.group(2)))}",
    ),
    (rf"\b({_RULERS}) ([VX])\b(?!\. [A-Z])", lambda m: f"{m.group(1)} the {_ordinal(_roman(m.group(2)))}"),
    (rf"(?<!\w)(?=I[IX]|VI|X[IV]){_ROMAN}(?!\.\w)", lambda m: str(_roman(m.group(1)))),
    (r"\bIV\b", "I V"),
    # Money.
    (rf"([$£€])\s?({_NUMBER})\s?[-–—]\s?\1?({_NUMBER})(?![\w,.]*\d)", r"\2 to \1\3"),
    (
        r"([$£€])\s?((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?![\d,.]*\d)"
        r"((?i:[ -]?(?:thousand|million|billion|trillion|bn|tn)|[kmb]))?\b",
        _amount,
    ),
    (r"([$£€])\.(\d\d)\b(?!\.\d)", _coins),
    # Dates, times and telephones.
    (r"(?<![\d/-])(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(?![\d/-])", _date),
    (r"(?<![\d/-])(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})(?![\d/-])", _date),
    (r"(?<![\d:.])(\d{1,2}:\d\d)\s?[-–]\s?(\d{1,2}:\d\d)(?![\d:])", r"\1 to \2"),
    (r"(?<![\d:.])(\d{1,2}):00(?=\s?o'clock)", r"\1"),
    (r"(?<![\d:.])(\d{1,2}):00(?![\d:])(?:\s?([aApP]\.?[mM]\b\.?))?", _hour),
    (r"(?<![\d:.])(\d{1,2}):0([1-9])(?![\d:])", r"\1 oh \2"),
    (r"(?<![\w-])(?:\+?1[-. ])?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\w-]|\.\d)", _telephone),
    (r"(?:(?<=[Cc]all )|(?<=[Dd]ial )|(?<![\w-])(?=555))\d{3}-\d{4}(?![\w-]|\.\d)", _telephone),
    # Units, ranges, years, decades, ordinals, fractions.
    (rf"(?<![\w,.-])({_NUMBER})[-–]({_NUMBER})(?![\d-]|[.,]\d)", r"\1 to \2"),
    (rf"(?<![\w.,$£€])({_NUMBER})(?: ?({_table(_UNIT)})| (m|s))([²³])?(?![\w/°²³])(?:\.(?=\s+[a-z]))?", _with_unit),
    (r"(?<![\w.,])['‘]?(1\d|20)?(\d)0s\b", _decade),
    (r"(?<![\w.,:/+#-])(1[1-9]|20(?=[1-9]))(\d\d)(?![\w:/+%-]|[.,]\d)", _year),
    (r"(?<![\w.,/])(\d{1,3}(?:,\d{3})+|\d+)(?<=00)th\b", _round_ordinal),
    (r"(?<![\w./])(?:(\d{1,3}) )?(\d{1,2})/(\d{1,2})(?![\w/]|[.,]\d)", _fraction),
    # Signs and powers.
    (r"(?<=\d) [-−] (?=\d[^.?!\n]*=)", " minus "),
    (r"#(?=\d)", "number "),
    (r"(?<!\w)~(?=[$£€]?\.?\d)", "about "),
    (r"(?<=[A-Za-z\d)])(?:²|\^2\b)", " squared"),
    (r"(?<=[A-Za-z\d)])(?:³|\^3\b)", " cubed"),
    (r"(?<=[A-Za-z\d)])\^(?=[A-Za-z\d(])", " to the power of "),
    # What is too long to be read in one.
    (r"(?<![\w.,])\d{13,}(?![\w,]|\.\d)|(?<![\w.,])\d+\.\d{7,}(?![\w.])", _digits),
    (rf"(?<={_SIGN})(?={_SIGN})", " "),
    (r"\S{41,}", _loosened),
]
RULES = [(re.compile(pattern), spoken) for pattern, spoken in _RULES]


def written_out(text: str) -> str:
    """Return a text of one line as it is said, in words and figures that espeak-ng reads as people do."""
    for pattern, spoken in RULES:
        text = pattern.sub(spoken, text)
    return text


_ITEM = re.compile(r"(?:[-*•‣]|\d{1,3}[.)])\s+(?=\S)")
_MARKER = re.compile(r"(?:[-*•‣]|#{1,6})\s+(?=\S)")
_RULE = re.compile(r"[\s*_=~#·•—–-]*")
_ENDED = re.compile(r"[.,;:!?…—-][\"'”’)\]*_~`]*$")


def joined(text: str) -> str:
    """Return a text of several lines in one; where its writer broke it on purpose, and no mark stands, with a mark.

    That is a full stop at a blank line, around an item of a list and after a heading; and where the next word would
    have fit into the line: a full stop, or a comma if that word has a small letter.
    """
    blocks: list[list[str]] = [[]]
    for line in map(str.strip, text.split("\n")):
        if not _RULE.fullmatch(line):
            blocks[-1].append(line)
        elif blocks[-1]:  # a blank line, or one that is drawn
            blocks.append([])
    found = [_in_one_line(block) for block in blocks if block]
    return " ".join([*(_closed(block, ".") for block in found[:-1]), *found[-1:]])


def _in_one_line(lines: list[str]) -> str:
    """Return the lines of a paragraph, which is as wide as the longest of them."""
    width, found = max(map(len, lines)), list[str]()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        marker, item, word = _MARKER.match(line), _ITEM.match(following), following.partition(" ")[0]
        said = line[marker.end() :] if marker else line
        if following and (item or (marker and line[0] == "#")):
            said = _closed(said, ".")
        elif following and len(line) + 1 + len(word) <= width:
            said = _closed(said, "," if word[0].islower() else ".")
        found += said.split()
    return " ".join(found)


def _closed(line: str, mark: str) -> str:
    """Return a line with a mark at its end, unless there is one."""
    return line if _ENDED.search(line) else line + mark
