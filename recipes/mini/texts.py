"""What the speakers of the corpus read: an endless, deterministic list of passages from free texts.

    prose       Jane Austen's novels but one, in runs of about 700 characters, in their order
    examples    WordNet's 21,000 speakable quotes of how a word is used, alone or a few together
    glosses     WordNet's definitions, as "Bakery: a workplace where baked goods are made."
    templates   figures, dates, abbreviations, questions, lists, dialogue (:mod:`recipes.mini.templates`)
    fragments   one or two words: who never heard a lone "the" cannot end it

The next passage comes from the source that lags most behind its share of all characters, so that every prefix of the
list is a fair sample. Nothing comes twice until its source is used up. Held out for evaluation: the Harvard sentences
with all that shares five consecutive words with one, one novel, and one in fifty examples by the sum of its letters.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recipes.mini import prose
from recipes.mini.sentences import WORDNET, five_grams, fragment, is_held_out, wordnet_examples
from recipes.mini.templates import template

SHARES = {"prose": 0.42, "examples": 0.26, "glosses": 0.12, "templates": 0.17, "fragments": 0.03}
"""Of all characters."""


@dataclass(frozen=True)
class Passage:
    """Utterances that one speaker says one after the other."""

    source: str
    utterances: tuple[str, ...]


def held_out_examples(folder: Path = WORDNET) -> list[str]:
    """Examples of WordNet that no training hears, of at least four words, with a full stop."""
    return [f"{text}." for text in wordnet_examples(folder) if is_held_out(text) and len(text.split()) >= 4]


def wordnet_glosses(folder: Path = WORDNET) -> list[str]:
    """Definitions of WordNet that a reader could speak aloud, with their word in front, sorted."""
    found = set()
    for path in sorted(folder.glob("data.*")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(" ") or " | " not in line:
                continue
            fields, gloss = line.split(" | ", 1)
            word = fields.split()[4].replace("_", " ")
            meaning = gloss.split(";")[0].strip()
            if (
                re.fullmatch(r"[a-z][a-z ]+", word)
                and re.fullmatch(r"[a-z][a-z' ,-]+", meaning)
                and 3 <= len(meaning.split()) <= 20
            ):
                found.add(f"{word.capitalize()}: {meaning}.")
    return sorted(found)


def joined(source: Iterator[str], rng: random.Random) -> str:
    """One text, or two to four short ones together, up to 200 characters."""
    wanted = rng.choices((1, 2, 3, 4), (60, 22, 12, 6))[0]
    parts = [next(source)]
    while len(parts) < wanted:
        following = next(source)
        if sum(map(len, [*parts, following])) > 200:
            break
        parts.append(following)
    return " ".join(parts)


def endless(texts: list[str], rng: random.Random) -> Iterator[str]:
    """Yield the texts shuffled, again and again."""
    while True:
        yield from rng.sample(texts, len(texts))


def passages(seed: int, held_out: list[str], folder: Path = WORDNET) -> Iterator[Passage]:
    """All that is to be read, without end; ``held_out`` texts and what is close to them are left out."""
    forbidden = {gram for line in held_out for gram in five_grams(line)}

    def allowed(text: str) -> bool:
        return not forbidden & five_grams(text)

    # Each source has a random state of its own: a change to one leaves the others as they are.
    rngs = {name: random.Random(f"{seed} {name}") for name in SHARES}
    examples = [text for text in wordnet_examples(folder) if not is_held_out(text) and allowed(text)]
    marked = (text + rngs["examples"].choice("......!?") for text in endless(examples, rngs["examples"]))
    glosses = endless([text for text in wordnet_glosses(folder) if allowed(text)], rngs["glosses"])
    templates = filter(allowed, (template(rngs["templates"]) for _ in itertools.count()))
    words = endless([text for text in examples if len(text.split()) > 3], rngs["fragments"])
    runs = [run for run in prose.training_runs() if all(map(allowed, run))]
    reading = (run for _ in itertools.count() for run in rngs["prose"].sample(runs, len(runs)))
    sources: dict[str, Iterator[tuple[str, ...]]] = {
        "prose": (tuple(run) for run in reading),
        "examples": ((joined(marked, rngs["examples"]),) for _ in itertools.count()),
        "glosses": ((next(glosses),) for _ in itertools.count()),
        "templates": ((joined(templates, rngs["templates"]),) for _ in itertools.count()),
        "fragments": ((fragment(next(words), rngs["fragments"]),) for _ in itertools.count()),
    }
    characters = dict.fromkeys(SHARES, 0)
    while True:
        name = min(SHARES, key=lambda source: characters[source] / SHARES[source])
        passage = Passage(name, next(sources[name]))
        characters[name] += sum(map(len, passage.utterances))
        yield passage
