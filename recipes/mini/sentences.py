"""Text to speak: short natural phrases from WordNet's examples, and templates for what dictionaries lack.

WordNet (Debian package ``wordnet-base``, a free licence) quotes about 48,000 usage examples. They cover the vocabulary
of English better than any prose of that size. Templates add numbers, dates, times and questions, spelled out, so
that the synthesiser and our phonemiser read the same words. The IEEE Harvard sentences are for evaluation: any
training sentence that shares five consecutive words with one of them is dropped.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path

HARVARD = [line for line in (Path(__file__).parent / "harvard.txt").read_text(encoding="utf-8").splitlines() if line]
"""IEEE Harvard sentences, for evaluation alone."""
WORDNET = Path("/usr/share/wordnet")
SPEAKABLE = re.compile(r"[A-Za-z][A-Za-z' ,-]*")
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
THINGS = "apples letters miles people dollars hours pages books tickets chairs days years houses minutes boxes".split()
QUESTIONS = (
    "what do you think of the {}|where did you put the {}|who told you about the {}|why is the {} so {}"
    "|do you like the {}|have you seen the {} {}|is this your {}|how much is the {} {}|could you bring me the {}"
    "|can we talk about the {}"
).split("|")


WHOLE, FRAGMENTS = 240, 16
"""Passages before the first fragment, and of how many one is a fragment."""


def spell(number: int) -> str:
    """An integer from 0 to 999,999 in words: ``spell(342) == "three hundred forty two"``."""
    if not 0 <= number < 1_000_000:
        raise ValueError(f"spell reads 0 to 999999, not {number}")
    if number >= 1000:
        rest = number % 1000
        return f"{spell(number // 1000)} thousand" + (f" {spell(rest)}" if rest else "")
    if number >= 100:
        rest = number % 100
        return f"{ONES[number // 100]} hundred" + (f" {spell(rest)}" if rest else "")
    if number >= 20:
        return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")
    return ONES[number]


def words_of(text: str) -> list[str]:
    """Lower-case words, punctuation gone."""
    return re.findall(r"[a-z']+", text.lower())


def wordnet_examples(folder: Path = WORDNET) -> list[str]:
    """The usage examples of WordNet that a reader could speak aloud, sorted, each once.

    Raises
    ------
    FileNotFoundError
        Where WordNet is not installed.
    """
    files = sorted(folder.glob("data.*"))
    if not files:
        raise FileNotFoundError(
            f"no WordNet in {folder}: install the Debian package wordnet-base, or give another folder"
        )
    found: set[str] = set()
    for path in files:
        for quote in re.findall(r'"([^"]+)"', path.read_text(encoding="utf-8", errors="replace")):
            text = quote.replace("--", ", ").strip(" ,.")
            if SPEAKABLE.fullmatch(text) and 2 <= len(text.split()) <= 25 and not re.search(r"\b[A-Z]{2,}\b", text):
                found.add(text[0].upper() + text[1:])
    return sorted(found)


def template(rng: random.Random, nouns: list[str], adjectives: list[str]) -> str:
    """One sentence with a number, a date, a time, or a question in it, all in words."""
    kind = rng.randrange(7)
    number = spell(rng.choice((rng.randrange(100), rng.randrange(1000), rng.randrange(100_000))))
    day, month, ordinal = rng.choice(DAYS), rng.choice(MONTHS), rng.choice(ORDINALS)
    noun, adjective = rng.choice(nouns), rng.choice(adjectives)
    if kind == 0:
        return f"There were {number} {rng.choice(THINGS)} in the {noun}."
    if kind == 1:
        return f"On {day}, the {ordinal} of {month}, we saw the {adjective} {noun}."
    if kind == 2:
        return f"At {spell(rng.randrange(1, 13))} {spell(rng.randrange(10, 60))} the {noun} was {adjective}."
    if kind == 3:
        return f"It cost {number} dollars, and the {noun} cost {spell(rng.randrange(100))} cents!"
    if kind == 4:
        return f"{number}, {spell(rng.randrange(100))}, {spell(rng.randrange(20))}.".capitalize()
    question = rng.choice(QUESTIONS)
    text = question.format(
        *((adjective, noun) if question.count("{}") == 2 and "so" not in question else (noun, adjective))
    )
    return text[0].upper() + text[1:] + "?"


def _lemmas(folder: Path, part: str) -> list[str]:
    lines = (folder / f"index.{part}").read_text(encoding="utf-8").splitlines()
    # lemma, part, senses, n, n kinds of pointer, senses, senses that the tagged texts use, offsets
    found = []
    for line in lines:
        fields = line.split()
        if line.startswith(" ") or not fields[0].isalpha():
            continue
        tagged = int(fields[4 + int(fields[3]) + 1])
        if tagged > 0 and 3 <= len(fields[0]) <= 12:
            found.append(fields[0])
    return found


def sentences(seed: int, held_out: list[str], folder: Path = WORDNET) -> Iterator[str]:
    """Endless sentences, no WordNet example twice until all have been used, none too close to ``held_out``."""
    rng = random.Random(seed)
    examples = wordnet_examples(folder)
    nouns, adjectives = _lemmas(folder, "noun"), _lemmas(folder, "adj")
    forbidden = {gram for line in held_out for gram in five_grams(line)}
    rng.shuffle(examples)
    position = 0
    while True:
        if rng.random() < 0.12:
            text = template(rng, nouns, adjectives)
        else:
            text = examples[position % len(examples)] + rng.choice("......!?")
            position += 1
        if not forbidden & five_grams(text):
            yield text


def five_grams(text: str) -> set[tuple[str, ...]]:
    """All runs of five consecutive words; a shorter text is one run."""
    words = words_of(text)
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def fragment(text: str, rng: random.Random) -> str:
    """One or two words of a text."""
    words = words_of(text)
    start = rng.randrange(len(words))
    return " ".join(words[start : start + rng.choice((1, 1, 2))]).capitalize() + rng.choice("...,!?")


def passages(seed: int, held_out: list[str], folder: Path = WORDNET) -> Iterator[str]:
    """Sentences alone and joined: about 45 % of one, the others of 2 to 5, up to 45 words.

    After the first ``WHOLE``, one in ``FRAGMENTS`` is a word or two: who never heard a lone "the" cannot end it.
    """
    rng = random.Random(seed + 1)
    source = sentences(seed, held_out, folder)
    for number in itertools.count():
        if number >= WHOLE and number % FRAGMENTS == 0:
            yield fragment(next(source), rng)
            continue
        wanted = rng.choices((1, 2, 3, 4, 5), (45, 25, 15, 10, 5))[0]
        parts = [next(source)]
        while len(parts) < wanted:
            following = next(source)
            if sum(len(part.split()) for part in [*parts, following]) > 45:
                break
            parts.append(following)
        yield " ".join(parts)


def robustness_sentences(count: int, seed: int = 7, folder: Path = WORDNET) -> list[str]:
    """Texts as people type them: 1 to 40 words, digits, abbreviations, odd punctuation, mixed case."""
    rng = random.Random(seed)
    examples = wordnet_examples(folder)
    odd = (
        "Dr. {} paid ${}.50 on the {}rd of May!",
        "{} -- {}; (no, {})...",
        "AT {}:30 P.M. THE {} LEFT?!",
        "e.g. {}, i.e. {}",
        "Mr. & Mrs. {} own {}% of it",
        "\"{}\" she said: '{}'",
        "no. {} vs. {}",
        "{}/{} of {}",
        "{}, {}, {}, {}!",
        "{}",
    )
    names = "Smith Jones water Monday eleven GREEN Paris school iPhone the2nd".split()
    found = []
    for index in range(count):
        if index % 4 == 3:
            pattern = rng.choice(odd)
            fill = [rng.choice((str(rng.randrange(1, 2000)), rng.choice(names))) for _ in range(pattern.count("{}"))]
            found.append(pattern.format(*fill))
            continue
        length = rng.choice((1, 2, 3, 5, 8, 12, 16, 20, 30, 40))
        words: list[str] = []
        while len(words) < length:
            words += rng.choice(examples).split()
            words[-1] += rng.choice((".", ",", "", "!", "?"))
        text = " ".join(words[:length])
        found.append(rng.choice((str, str, str.lower, str.upper))(text))
    return found
