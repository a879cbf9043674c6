"""Which English voices of Kokoro are worth learning from: ``python -m recipes.mini.candidates`` (ten minutes).

Every voice reads the same few sentences. Whisper tiny.en counts the words that are lost, DNSMOS predicts what a
listener would say of the sound, and resemblyzer tells how far a voice is from all others. The table is CANDIDATES.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from recipes.mini.kokoro import ENGLISH, SAMPLE_RATE, Kokoro
from recipes.mini.speakers import SPEAKERS
from wandlib.evaluation.error_rates import bootstrap, count_errors, similarity
from wandlib.evaluation.mos import Dnsmos
from wandlib.evaluation.recognizers import FasterWhisper
from wandlib.evaluation.report import markdown_table
from wandlib.evaluation.speakers import Resemblyzer

REPORT = Path(__file__).parent / "CANDIDATES.md"
SENTENCES = (
    "The museum opens at half past nine, and the last tickets are sold at four in the afternoon.",
    "She asked whether anybody had seen the little brown dog that sleeps in front of the bakery.",
    "Could you please put the heavy boxes on the shelf behind the kitchen door?",
    "Thirty years ago there was nothing here but a narrow road, a few farms, and a wooden bridge.",
    "He laughed, shook his head, and told them the whole story again from the very beginning!",
    "Fresh bread, cold butter, a jar of honey: nobody wanted anything else for breakfast.",
)


def measure(sentences: list[str], threads: int = 1) -> list[dict[str, Any]]:
    """One row for each voice: word error rate, DNSMOS, similarity within itself and to the closest other voice."""
    kokoro, recognize, score, encode = Kokoro(threads), FasterWhisper(threads=threads), Dnsmos(), Resemblyzer()
    rows, vectors = [], {}
    for voice in tqdm(ENGLISH, desc="voices"):
        sounds = [kokoro.speak(text, voice) for text in sentences]
        counts = [
            count_errors(text, recognize(sound, SAMPLE_RATE), recognize.normalize)
            for text, sound in zip(sentences, sounds, strict=True)
        ]
        errors = bootstrap([count.word_errors for count in counts], [count.words for count in counts], sentences)
        vectors[voice] = np.stack([encode(sound, SAMPLE_RATE) for sound in sounds])
        seconds = sum(map(len, sounds)) / SAMPLE_RATE
        rows.append(
            {
                "voice": voice,
                "WER": f"{errors.value:.3f}",
                "DNSMOS": f"{np.mean([score(sound, SAMPLE_RATE)['DNSMOS'] for sound in sounds]):.2f}",
                "words a minute": f"{60 * sum(count.words for count in counts) / seconds:.0f}",
            }
        )
    means = {voice: rows.mean(0) / np.linalg.norm(rows.mean(0)) for voice, rows in vectors.items()}
    chosen = {speaker.voice: speaker.name for speaker in SPEAKERS}
    for row in rows:
        voice = row["voice"]
        others = {other: similarity(means[voice], means[other]) for other in ENGLISH if other != voice}
        closest = max(others, key=others.__getitem__)
        row["to itself"] = f"{np.mean([similarity(vector, means[voice]) for vector in vectors[voice]]):.2f}"
        row["to the closest"] = f"{others[closest]:.2f} ({closest})"
        row["speaker"] = chosen.get(voice, "")
    return rows


def report(rows: list[dict[str, Any]], sentences: list[str]) -> str:
    """Write the document."""
    words = sum(len(sentence.split()) for sentence in sentences)
    return "\n".join(
        (
            "# English voices of Kokoro-82M",
            "",
            f"By `python -m recipes.mini.candidates`: {len(sentences)} sentences ({words} words) a voice, speed 1. One",
            f"word is {1 / words:.3f} WER, so small differences between voices mean nothing. WER: Whisper tiny.en",
            "(8-bit, beam 5). DNSMOS: P.835 overall, 1 to 5. Similarity: resemblyzer, of each sentence to the voice's",
            "mean, and of that mean to the closest other voice. *speaker*: the name in the corpus of those chosen.",
            "af and am are American women and men, bf and bm British ones.",
            "",
            markdown_table(rows),
            "",
        )
    )


def main(threads: Annotated[int, typer.Option(help="Threads of synthesis and recognition.")] = 1) -> None:
    """Measure all English voices and write CANDIDATES.md."""
    rows = measure(list(SENTENCES), threads)
    REPORT.write_text(report(rows, list(SENTENCES)), encoding="utf-8")
    typer.echo(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    typer.run(main)
