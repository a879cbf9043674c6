"""What the corpus reads: prose in its order, templates, and what is held out."""

from __future__ import annotations

import itertools
import random
import struct
from collections import Counter
from pathlib import Path

import pytest

from recipes.mini import downloads, prose, texts
from recipes.mini.downloads import AUSTEN, Download
from recipes.mini.sentences import HARVARD, WORDNET, five_grams, is_held_out, wordnet_examples
from recipes.mini.templates import PATTERNS, SLOTS, fill
from wandlib.systems.mini.text import Phonemizer

needs_wordnet = pytest.mark.skipif(not WORDNET.is_dir(), reason="needs the Debian package wordnet-base")


@pytest.fixture(scope="module")
def novels() -> dict[str, list[str]]:
    try:
        return prose.novels()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_lines_of_an_r_vector() -> None:
    """By R's own format: version 3, encoding UTF-8, a vector of two strings and an empty one."""
    strings = ["EMMA", "naïve", ""]
    stored = b"X\n" + struct.pack(">III", 3, 0x040201, 0x030500) + struct.pack(">I", 5) + b"UTF-8"
    stored += struct.pack(">II", 16, len(strings))
    for string in strings:
        raw = string.encode()
        stored += struct.pack(">II", 0x00040009, len(raw)) + raw
    assert prose.lines_of(stored) == strings
    with pytest.raises(ValueError, match="kind 13 instead of 16"):
        prose.lines_of(stored.replace(struct.pack(">II", 16, 3), struct.pack(">II", 13, 3)))


def test_sentences_of_a_paragraph() -> None:
    paragraph = 'Mr. Knightley came. "Is it _you_?" she cried--"really?" It was.'
    assert prose.sentences_of(paragraph) == ["Mr. Knightley came.", '"Is it you?" she cried — "really?"', "It was."]
    assert prose.sentences_of("He was born in 1775.") == []  # figures come from the templates
    assert prose.sentences_of("ANNE ELLIOT, again.") == []


def test_a_long_sentence_is_cut_at_its_marks() -> None:
    long = "; ".join(f"the {word} of them went away before the others had come" for word in ("first", "next", "last"))
    (whole,) = prose.pieces(long)
    assert whole == long
    parts = prose.pieces(f"{long}; {long}.")
    assert len(parts) == 2
    assert all(len(part) <= prose.LONGEST for part in parts)
    assert all(part[0].isupper() for part in parts[1:])
    assert " ".join(parts).lower() == f"{long}; {long}."
    assert prose.pieces("word " * 100) == []


def test_runs_keep_the_order_and_stop_at_what_cannot_be_read() -> None:
    paragraphs = ["One came. Two came.", "Three came.", "In 1813.", "Four came."]
    assert list(prose.runs(paragraphs, 1000)) == [["One came.", "Two came.", "Three came."], ["Four came."]]
    assert list(prose.runs(paragraphs, 15)) == [["One came.", "Two came."], ["Three came."], ["Four came."]]


def test_six_novels_of_which_one_is_held_out(novels: dict[str, list[str]]) -> None:
    assert len(novels) == 6
    assert prose.HELD_OUT in novels
    assert any(text.startswith("It is a truth universally acknowledged") for text in novels["Pride And Prejudice"])
    assert sum(map(len, novels[prose.HELD_OUT])) > 400_000  # nine hours to read from


@needs_wordnet
def test_passages_are_a_fair_and_repeatable_sample(novels: dict[str, list[str]]) -> None:
    made = list(itertools.islice(texts.passages(0, HARVARD), 3000))
    assert list(itertools.islice(texts.passages(0, HARVARD), 500)) == made[:500]
    for prefix in (made[:600], made):
        characters: Counter[str] = Counter()
        for passage in prefix:
            characters[passage.source] += sum(map(len, passage.utterances))
        for source, share in texts.SHARES.items():
            assert characters[source] / characters.total() == pytest.approx(share, abs=0.02)
    spoken = [text for passage in made for text in passage.utterances if passage.source != "fragments"]
    assert max(map(len, spoken)) <= 260
    forbidden = {gram for line in HARVARD for gram in five_grams(line)}
    assert not any(forbidden & five_grams(text) for text in spoken)
    held_out = set(prose.runs(novels[prose.HELD_OUT], 10**9).__next__())
    assert not any(text in held_out and len(text) > 40 for text in spoken)


@needs_wordnet
def test_held_out_examples_are_never_spoken() -> None:
    examples = wordnet_examples()
    held_out = [text for text in examples if is_held_out(text)]
    assert 0.01 < len(held_out) / len(examples) < 0.03
    assert is_held_out("A green door") == is_held_out("a GREEN door!")
    assert {line[:-1] for line in texts.held_out_examples()} <= set(held_out)
    spoken = {
        text
        for passage in itertools.islice(texts.passages(3, []), 4000)
        for text in passage.utterances
        if passage.source == "examples"
    }
    assert not any(text in line for text in texts.held_out_examples() for line in spoken)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_template_can_be_said(seed: int) -> None:
    rng, phonemize = random.Random(seed), Phonemizer()
    for pattern in PATTERNS:
        text = fill(pattern, rng)
        assert "{" not in text
        assert "_" not in text
        assert len(phonemize(text)) > 2
    assert all(f"{{{slot}}}" in "".join(PATTERNS) for slot in SLOTS)


def test_ordinals_have_their_endings() -> None:
    rng = random.Random(0)
    made = {SLOTS["ordinal"](rng) for _ in range(2000)}
    assert {"1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "31st"} <= made
    assert len(made) == 31


def test_a_download_is_checked_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDLIB_CACHE", str(tmp_path))
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of "hello", by FIPS 180-4
    made = Download("a.txt", digest, ("sh", "-c", "printf hello > a.txt"), "a greeting")
    assert made.get() == tmp_path / "a.txt"
    assert downloads.sha256(made.get()) == digest
    (tmp_path / "a.txt").write_text("other")
    with pytest.raises(ValueError, match=r"a\.txt has the sum .* delete it and run again"):
        made.get()
    with pytest.raises(FileNotFoundError, match="needs `no-such-client`, which is not installed: run"):
        Download("b.txt", digest, ("no-such-client",), "a greeting").get()
    with pytest.raises(FileNotFoundError, match=r"brought no b\.txt \(no luck\)"):
        Download("b.txt", digest, ("sh", "-c", "echo no luck >&2; exit 3"), "a greeting").get()
    assert AUSTEN.name.endswith(".deb")
