"""Sentences: WordNet's examples to learn from, and those that evaluation reads.

WordNet (Debian package ``wordnet-base``, a free license) quotes how words are used. About 21,000 of its examples can be
read aloud, and cover the vocabulary of English better than any prose of that size. The IEEE Harvard sentences are for
evaluation: any training sentence that shares five consecutive words with one of them is dropped.
"""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

HARVARD = [line for line in (Path(__file__).parent / "harvard.txt").read_text(encoding="utf-8").splitlines() if line]
"""IEEE Harvard sentences, for evaluation alone."""
WORDNET = Path("/usr/share/wordnet")
SPEAKABLE = re.compile(r"[A-Za-z][A-Za-z' ,-]*")
HELD_OUT_ONE_IN = 50


def words_of(text: str) -> list[str]:
    """Lower-case words, punctuation gone."""
    return re.findall(r"[a-z']+", text.lower())


def wordnet_examples(folder: Path = WORDNET) -> list[str]:
    """List the usage examples of WordNet that a reader could speak aloud, sorted, each once.

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


def is_held_out(text: str) -> bool:
    """Whether an example of WordNet is kept for evaluation: one in fifty, by the sum of its letters."""
    letters = re.sub(r"[^a-z]", "", text.lower())
    return int.from_bytes(hashlib.sha256(letters.encode()).digest()[:8]) % HELD_OUT_ONE_IN == 0


def five_grams(text: str) -> set[tuple[str, ...]]:
    """All runs of five consecutive words; a shorter text is one run."""
    words = words_of(text)
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def fragment(text: str, rng: random.Random) -> str:
    """One or two words of a text."""
    words = words_of(text)
    start = rng.randrange(len(words))
    return " ".join(words[start : start + rng.choice((1, 1, 2))]).capitalize() + rng.choice("...,!?")


def robustness_sentences(count: int, seed: int = 7, folder: Path = WORDNET) -> list[str]:
    """Texts as people type them: 1 to 60 words, figures, abbreviations, quotes, odd punctuation, mixed case.

    Their words come from examples that are held out of training.
    """
    rng = random.Random(seed)
    examples = [text for text in wordnet_examples(folder) if is_held_out(text)]
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
        "It was 03/{}/1999, or May {}, 2024?",
        "On the {}th of July, {} B.C.: {}",
    )
    names = "Smith Jones water Monday eleven GREEN Paris school iPhone the2nd".split()
    found = []
    for index in range(count):
        if index % 4 == 3:
            pattern = rng.choice(odd)
            fill = [rng.choice((str(rng.randrange(1, 2000)), rng.choice(names))) for _ in range(pattern.count("{}"))]
            found.append(pattern.format(*fill))
            continue
        length = rng.choice((1, 2, 3, 5, 8, 12, 16, 20, 30, 40, 60))
        words: list[str] = []
        while len(words) < length:
            words += rng.choice(examples).split()
            words[-1] += rng.choice((".", ",", "", "!", "?"))
        text = " ".join(words[:length])
        found.append(rng.choice((str, str, str.lower, str.upper))(text))
    return found
