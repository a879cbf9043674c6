"""Word and character error rates, and bootstrap intervals of any mean.

Recognizers are in :mod:`wandlib.evaluation.recognizers`, speaker encoders in :mod:`wandlib.evaluation.speakers`; the
whole measurement of a system is :func:`wandlib.evaluation.evaluate`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wandlib.evaluation.recognizers import PocketSphinx, Recognizer
from wandlib.evaluation.speakers import Resemblyzer, SpeakerEncoder, similarity

__all__ = [
    "ErrorCounts",
    "ErrorRates",
    "Interval",
    "PocketSphinx",
    "Recognizer",
    "Resemblyzer",
    "SpeakerEncoder",
    "between_draws",
    "bootstrap",
    "count_errors",
    "error_rates",
    "normalize",
    "similarity",
    "tail_share",
]

FEWEST_GROUPS = 5
"""Of fewer there is no interval: it would leave out less than the rarest draw, one group alone, and so no draw."""
SPACELESS_LETTER = re.compile("[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""A letter of a script that has no spaces between words: Thai, Lao, Burmese, Japanese, Chinese."""
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ＇", "'"))


@dataclass(frozen=True)
class ErrorRates:
    """Errors over words or characters of all references together; 0 is perfect, above 1 is possible."""

    wer: float
    cer: float


@dataclass(frozen=True)
class ErrorCounts:
    """Errors in one sentence (substitutions, deletions and insertions), and how much there was to get wrong."""

    word_errors: int
    words: int
    character_errors: int
    characters: int


@dataclass(frozen=True)
class Interval:
    """A measured value and where it may lie: ``low`` to ``high``; both NaN where that cannot be told.

    ``0 in interval`` is False where 0 is ruled out; without bounds nothing is.
    """

    value: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return not (value < self.low or value > self.high)

    def __str__(self) -> str:
        bounds = "" if math.isnan(self.low) else f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.value:.3f}{bounds}"


def normalize(text: str) -> str:
    """Return words of lower-case letters without accents, with the apostrophes inside them; single spaces."""
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", letters.lower()))


def visible(text: str) -> str:
    """Return ``text`` without characters that nobody sees, such as soft hyphens, which would cut words."""
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def plain_apostrophes(text: str) -> str:
    """Return ``text`` with the apostrophe that recognizers write, and normalizers know, for those of typesetters."""
    return text.translate(_APOSTROPHES)


def count_errors(reference: str, hypothesis: str, normalize: Callable[[str], str] = normalize) -> ErrorCounts:
    """Errors of one hypothesis, words and characters, both sides normalized.

    Parameters
    ----------
    reference, hypothesis
        The text, and its transcript by a recognizer.
    normalize
        What is the same: the default knows English letters; a recognizer that writes digits, or another language,
        needs one of its own, such as :meth:`wandlib.evaluation.recognizers.Whisper.normalize`.

    Raises
    ------
    ValueError
        When the reference has no words, or digits that ``normalize`` drops.
    """
    import jiwer

    reference, hypothesis = visible(reference), visible(hypothesis)
    # What stands in brackets is spoken; Whisper's normalizer takes it for a note that a transcriber made, and drops it.
    spoken = re.sub(r"[][(){}<>]", " ", re.sub(r"(?<=\w)[][(){}<>](?=\w)", "", reference))  # "colo(u)r" is one word
    if re.search(r"\d", unicodedata.normalize("NFKD", spoken)) and not normalize("5"):  # "½" has digits, too
        raise ValueError(f"reference {reference!r} has digits, which are no words for this recognizer: spell them out")
    truth, heard = (normalize(plain_apostrophes(side)) for side in (spoken, hypothesis))
    if not truth:
        raise ValueError(f"reference {reference!r} has no words")
    words = jiwer.process_words(truth, heard)
    if SPACELESS_LETTER.search(truth):  # there they are the normalizer's, between all letters
        truth, heard = truth.replace(" ", ""), heard.replace(" ", "")
    characters = jiwer.process_characters(truth, heard)
    return ErrorCounts(
        word_errors=words.substitutions + words.deletions + words.insertions,
        words=words.hits + words.substitutions + words.deletions,
        character_errors=characters.substitutions + characters.deletions + characters.insertions,
        characters=characters.hits + characters.substitutions + characters.deletions,
    )


def error_rates(
    references: Sequence[str], hypotheses: Sequence[str], normalize: Callable[[str], str] = normalize
) -> ErrorRates:
    """Word and character error rates of all sentences together, see :func:`count_errors`.

    Raises
    ------
    ValueError
        When the two differ in number, there are none, or a reference has no words.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    if not references:
        raise ValueError("no sentences: there is no error rate of nothing")
    counts = [count_errors(truth, heard, normalize) for truth, heard in zip(references, hypotheses, strict=True)]
    return ErrorRates(
        wer=sum(count.word_errors for count in counts) / sum(count.words for count in counts),
        cer=sum(count.character_errors for count in counts) / sum(count.characters for count in counts),
    )


def tail_share(groups: int, level: float = 0.95) -> float:
    """Share of the draws to leave out at each end of a bootstrap interval over ``groups`` groups.

    Plain percentiles, (1 - level) / 2, are too narrow: draws from n groups spread as if their variance were over n
    and not over n - 1, and ends of a normal distribution stand where Student's belong. The expanded percentile interval
    (Hesterberg, arXiv 1411.5279) makes up for both: Φ(-√(n / (n - 1)) t), t the (1 + level) / 2 quantile of Student's
    distribution with n - 1 degrees of freedom.

    Raises
    ------
    ValueError
        When there are fewer than two groups, or the level is none between 0 and 1.
    """
    if groups < 2 or not 0 < level < 1:
        raise ValueError(f"an interval takes two groups and a level between 0 and 1, such as 0.95: {groups}, {level}")
    from scipy.special import ndtr, stdtrit

    return float(ndtr(-math.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, (1 + level) / 2)))


def between_draws(value: float, drawn: NDArray[np.floating], groups: int, level: float = 0.95) -> Interval:
    """Return the value with the interval that its resampled values give, by :func:`tail_share`.

    Parameters
    ----------
    value
        As it was measured.
    drawn
        The same of each draw, shape [draws].
    groups
        How many groups the draws are of; without bounds below :data:`FEWEST_GROUPS`.
    level
        How often the interval is to hold the true value.
    """
    if groups < FEWEST_GROUPS:
        return Interval(value, math.nan, math.nan)
    tail = tail_share(groups, level)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def bootstrap(
    values: Sequence[float],
    weights: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Interval:
    """``sum(values) / sum(weights)`` and its bootstrap interval (Efron, 1979), percentiles by :func:`tail_share`.

    Errors over words are a word error rate, scores over ones a mean. The difference of two systems on the same
    utterances is a bootstrap of the differences of their values: what both find hard cancels.

    There is no interval of fewer than :data:`FEWEST_GROUPS` groups, nor where all groups have the same rate, such as no
    error in any sentence: every draw is then 0, which does not make 0 certain. After n sentences without an error, up
    to 3 / n of all sentences may still have one (the rule of three).

    Parameters
    ----------
    values, weights
        One of each per utterance; weights None: all 1.
    groups
        What is drawn with replacement, utterances of one group together; None: single utterances. Pass the sentence
        where a sentence is spoken by several speakers or seeds: if it is hard for a recognizer it is hard every time,
        and as many utterances of few sentences say less about other sentences than they seem to.
    level
        How often the interval is to hold the true value.
    draws, seed
        Of the resampling; the same seed gives the same interval.

    Raises
    ------
    ValueError
        When there is nothing to draw from, a value or a weight is NaN or infinite, the weights are not above 0 in all,
        the three differ in number, or level or draws are out of range.
    """
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"level is between 0 and 1, such as 0.95, and draws are at least 1: {level}, {draws}")
    count = len(values)
    weights = [1.0] * count if weights is None else weights
    groups = range(count) if groups is None else groups
    if not count or not len(weights) == len(groups) == count:
        raise ValueError(
            f"need as many values as weights and groups, and at least one: {count}, {len(weights)}, {len(groups)}"
        )
    for measured in (*values, *weights):
        if not math.isfinite(measured):
            raise ValueError(f"values and weights are to be finite numbers, and one is {measured}")
    if min(weights) < 0 or not sum(weights) > 0:
        raise ValueError(f"weights are numbers from 0 on, and not all 0: {min(weights)} to {max(weights)}")
    numbers: dict[Hashable, int] = {}
    members = [numbers.setdefault(group, len(numbers)) for group in groups]
    sums = np.zeros((len(numbers), 2))
    np.add.at(sums, members, np.column_stack([values, weights]))
    value = float(sums[:, 0].sum() / sums[:, 1].sum())
    if np.allclose(sums[:, 0], value * sums[:, 1], rtol=1e-12, atol=0):
        return Interval(value, math.nan, math.nan)
    times = np.random.default_rng(seed).multinomial(len(numbers), [1 / len(numbers)] * len(numbers), size=draws)
    drawn = times @ sums
    return between_draws(value, drawn[:, 0] / drawn[:, 1], len(numbers), level)
