"""Prose to read in its order: Jane Austen's six novels (public domain), from the Debian package r-cran-janeaustenr.

The package is R's: each novel is one compressed, serialized vector of lines, with an empty line between paragraphs.
A paragraph comes out as sentences that a speaker can say in one breath of at most 250 characters. The last novel,
Persuasion, is held out: evaluation reads from it what no training has heard.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from recipes.mini.downloads import AUSTEN

HELD_OUT = "Persuasion"
LONGEST, SHORTEST = 250, 2
"""Characters of a sentence at most; letters of one at least."""
_DATA = Path("usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
_TITLES = r"Mr|Mrs|Ms|Dr|St|Capt|Col|Esq|Rev|Messrs|Adm|Lt|Gen|Hon|[A-Z]"
_SPEAKABLE = re.compile(r"[A-Za-z0-9 ,.;:!?'\"()—-]+")


def lines_of(serialized: bytes) -> list[str]:
    """Read the strings of one R character vector, in XDR serialization, format 3."""
    # 14 bytes of versions, the encoding's name with its length, then type and length of the vector.
    (encoding,) = struct.unpack_from(">I", serialized, 14)
    kind, count = struct.unpack_from(">II", serialized, 18 + encoding)
    if kind != 16:
        raise ValueError(f"an R vector of kind {kind} instead of 16, strings")
    position, lines = 26 + encoding, []
    for _ in range(count):
        _, length = struct.unpack_from(">Ii", serialized, position)
        position += 8
        lines.append(serialized[position : position + max(length, 0)].decode("utf-8"))
        position += max(length, 0)
    return lines


def novels() -> dict[str, list[str]]:
    """Paragraphs of each novel by its title, in order, headings left out.

    Raises
    ------
    FileNotFoundError
        Where the package cannot be fetched, or dpkg-deb is not there to unpack it.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(["dpkg-deb", "-x", str(AUSTEN.get()), folder], check=True, capture_output=True)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"prose comes from a Debian package: {error}") from error
        stored = (Path(folder) / _DATA).read_bytes()
    found = {}
    while stored:
        stream = zlib.decompressobj()
        lines = lines_of(stream.decompress(stored[4:]))
        stored = stream.unused_data
        paragraphs = [" ".join(part.split()) for part in "\n".join(lines).split("\n\n")]
        found[lines[0].title()] = [part for part in paragraphs[1:] if part and not part.isupper() and len(part) > 40]
    return found


def sentences_of(paragraph: str) -> list[str]:
    """Cut a paragraph into sentences as a speaker says them; none when it holds what cannot be read aloud.

    Sentences longer than :data:`LONGEST` are cut at semicolons, colons and dashes, then at commas.
    """
    text = paragraph.translate(str.maketrans({"_": None, "“": '"', "”": '"', "’": "'", "‘": "'"}))
    text = " ".join(text.replace("--", " — ").split())
    if not _SPEAKABLE.fullmatch(text) or re.search(r"[A-Z]{2,}|\d", text):
        return []
    found: list[str] = []
    for sentence in split(text):
        parts = pieces(sentence)
        if not parts:
            return []
        found += parts
    return [part for part in found if sum(map(str.isalpha, part)) >= SHORTEST]


def split(text: str) -> list[str]:
    """Sentences, each with its mark and its quotes; titles such as "Mr." end none."""
    found, start = [], 0
    for match in re.finditer(r"[.!?][\"')\]]*\s+(?=[\"'(\[]*[A-Z])", text):
        if match.group().startswith(".") and re.search(rf"\b(?:{_TITLES})$", text[start : match.start()]):
            continue
        found.append(text[start : match.end()].strip())
        start = match.end()
    return [part for part in (*found, text[start:].strip()) if part]


def pieces(sentence: str) -> list[str]:
    """Cut a sentence into parts of at most :data:`LONGEST` characters; none where its marks do not allow it."""
    if len(sentence) <= LONGEST:
        return [sentence]
    for mark in (r"[;:]\s+|\s—\s", r",\s+"):
        cuts = [match.end() for match in re.finditer(mark, sentence) if 40 < match.end() < len(sentence) - 40]
        if cuts:
            cut = min(cuts, key=lambda place: abs(place - len(sentence) / 2))
            left, right = pieces(sentence[:cut].strip(" —")), pieces(sentence[cut:].strip())
            if left and right:
                return [*left, right[0][0].upper() + right[0][1:], *right[1:]]
    return []


def runs(paragraphs: list[str], characters: int) -> Iterator[list[str]]:
    """Sentences in their order, in runs of about ``characters``: what one speaker reads at a stretch.

    A paragraph that cannot be read aloud ends a run.
    """
    run: list[str] = []
    for paragraph in paragraphs:
        sentences = sentences_of(paragraph)
        if not sentences and run:
            yield run
            run = []
        for sentence in sentences:
            run.append(sentence)
            if sum(map(len, run)) >= characters:
                yield run
                run = []
    if run:
        yield run


def training_runs(characters: int = 700) -> list[list[str]]:
    """Return the runs of all novels but the one that is held out."""
    return [run for title, text in novels().items() if title != HELD_OUT for run in runs(text, characters)]


def held_out_prose() -> list[str]:
    """Paragraphs of the novel that is held out, in order, those that can be read aloud."""
    return [paragraph for paragraph in novels()[HELD_OUT] if sentences_of(paragraph)]
