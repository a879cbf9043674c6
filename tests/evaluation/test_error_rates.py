"""Error rates against counts made by hand, bootstrap intervals against theory and against a slow second path."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import jiwer
import numpy as np
import pytest
from scipy import stats

from wandlib.evaluation.error_rates import (
    FEWEST_GROUPS,
    ErrorCounts,
    Interval,
    bootstrap,
    count_errors,
    error_rates,
    normalize,
    tail_share,
)
from wandlib.evaluation.recognizers import plain_english


def test_normalize() -> None:
    assert normalize("It's  5 O'CLOCK -- now!") == "it's o'clock now"
    assert normalize("A naïve café, ﬁve ＡＢＣ") == "a naive cafe five abc"
    assert normalize("the dogs' 'real' rock 'n' roll") == "the dogs real rock n roll"


@pytest.mark.parametrize("normalizer", [normalize, plain_english])
@pytest.mark.parametrize("apostrophe", "’‘ʼ＇")
def test_an_apostrophe_is_one_however_it_is_written(normalizer: Callable[[str], str], apostrophe: str) -> None:
    text = "It's easy: we don't, they'll see, o'clock."
    written = text.replace("'", apostrophe)
    assert count_errors(written, text, normalizer) == count_errors(text, text, normalizer)
    assert count_errors(text, written, normalizer).character_errors == 0


@pytest.mark.parametrize("normalizer", [normalize, plain_english])
@pytest.mark.parametrize("quoted", ["She said ‘hello there’ to me.", "She said 'hello there' to me."])
def test_single_quotes_are_not_spoken(normalizer: Callable[[str], str], quoted: str) -> None:
    assert count_errors(quoted, "She said hello there to me.", normalizer).word_errors == 0


def test_error_rates_by_hand() -> None:
    # "the cat sat" / "the bat": one substitution and one deletion over three words; b for c and " sat" gone, 5 of 11.
    rates = error_rates(["The cat sat."], ["the bat"])
    assert rates.wer == pytest.approx(2 / 3)
    assert rates.cer == pytest.approx(5 / 11)
    assert count_errors("The cat sat.", "the bat") == ErrorCounts(2, 3, 5, 11)


def test_error_rates_pool_all_sentences() -> None:
    truth, heard = ["one two three four", "five", "six seven"], ["one two three four", "six", ""]
    rates = error_rates(truth, heard)
    assert rates.wer == pytest.approx(3 / 7) == jiwer.wer(truth, heard)
    assert rates.cer == pytest.approx(jiwer.cer(truth, heard))


def test_more_words_than_there_were() -> None:
    assert error_rates(["one"], ["two three four"]).wer == pytest.approx(3)


def test_another_normalizer() -> None:
    """Characters of another script count, where the normalizer keeps them."""
    assert count_errors("你好吗", "你好", str.strip).character_errors == 1
    assert count_errors("five", "5", lambda text: text.replace("five", "5")).word_errors == 0


def test_what_stands_in_brackets_is_spoken() -> None:
    """Whisper's normalizer would drop it from the reference, and count every word of good speech as one too many."""
    text = "He sold the house (it was far too big for him) and moved."
    assert count_errors(text, re.sub("[()]", "", text), plain_english) == ErrorCounts(0, 13, 0, 54)
    assert count_errors("(Nobody answered.)", "Nobody answered.", plain_english).words == 2
    assert count_errors("Nobody answered.", "Nobody answered. [Music]", plain_english).word_errors == 0


def test_what_nobody_sees_or_hears_cuts_no_word() -> None:
    assert count_errors("The colo(u)r of it", "the colour of it").word_errors == 0
    assert count_errors("co\u00adop\u200bs it", "coops it").word_errors == 0
    assert count_errors("the one(s) [here]", "the ones here").word_errors == 0


def test_bad_references() -> None:
    with pytest.raises(ValueError, match="1 references but 2 hypotheses"):
        error_rates(["one"], ["one", "two"])
    with pytest.raises(ValueError, match="reference '- -' has no words"):
        error_rates(["one", "- -"], ["one", "two"])
    # Said as it should be, it would count as two errors in four words.
    with pytest.raises(ValueError, match=r"reference 'Born in 1990\.' has digits, which are no words for"):
        count_errors("Born in 1990.", "born in nineteen ninety")
    assert count_errors("Born in 1990.", "born in 1990", plain_english).word_errors == 0
    for text in ("½ a cup", "x² is here"):
        with pytest.raises(ValueError, match="has digits"):
            count_errors(text, "half a cup")
    with pytest.raises(ValueError, match="no sentences"):
        error_rates([], [])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_no_evidence(value: float) -> None:
    with pytest.raises(ValueError, match=f"finite numbers, and one is {value}"):
        bootstrap([0.1, value, *[0.2] * 8])


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says() -> None:
    """For n independent values the 95 % interval is 1.96 standard errors on either side."""
    values = np.random.default_rng(1).normal(5, 2, size=400)
    found = bootstrap(values.tolist(), draws=4000)
    error = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_bootstrap_of_a_rate_by_the_slow_path() -> None:
    """Whole groups are drawn, and errors and words of each go together."""
    errors, words, groups = [3.0, 0.0, 1.0, 2.0, 5.0, 1.0, 4.0], [4.0, 6.0, 5.0, 3.0, 9.0, 8.0, 7.0], list("abacbde")
    found = bootstrap(errors, words, groups, draws=2000, seed=3)
    counts = np.random.default_rng(3).multinomial(5, [1 / 5] * 5, size=2000)
    rates = []
    for drawn in counts:
        times = dict(zip("abcde", drawn, strict=True))
        total = sum(times[g] * w for g, w in zip(groups, words, strict=True))
        rates.append(sum(times[g] * e for g, e in zip(groups, errors, strict=True)) / total)
    assert found.value == pytest.approx(16 / 42)
    tail = stats.norm.cdf(-math.sqrt(5 / 4) * stats.t.ppf(0.975, 4))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(rates, [tail, 1 - tail])))
    assert tail_share(5) == pytest.approx(tail)


def test_of_few_values_it_is_as_wide_as_students_interval() -> None:
    values = np.random.default_rng(5).normal(5, 2, size=10)
    found = bootstrap(values.tolist(), draws=40_000)
    low, high = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert tail_share(1_000_000) == pytest.approx(0.025, rel=1e-4)


def test_of_few_sentences_it_holds_the_truth_as_often_as_it_says() -> None:
    """Errors are rare and come in any number; the plain percentiles of the same draws hold it too seldom."""
    random = np.random.default_rng(1)
    expanded = plain = 0
    for trial in range(600):
        sentences = int(random.integers(7, 11))
        errors, words = random.poisson(0.8, sentences), random.integers(7, 12, sentences)
        found = bootstrap(errors.tolist(), words.tolist(), draws=1000, seed=trial)
        expanded += 0.8 / 9 in found
        times = np.random.default_rng(trial).multinomial(sentences, [1 / sentences] * sentences, size=1000)
        low, high = np.percentile((times @ errors) / (times @ words), [2.5, 97.5])
        plain += low <= 0.8 / 9 <= high
    assert expanded / 600 >= 0.9
    assert plain / 600 < 0.9


def test_saying_each_sentence_nine_times_is_no_new_evidence() -> None:
    values = np.random.default_rng(0).normal(size=20)
    once = bootstrap(values.tolist(), groups=range(20))
    nine_times = bootstrap(np.repeat(values, 9).tolist(), groups=np.repeat(range(20), 9).tolist())
    naive = bootstrap(np.repeat(values, 9).tolist())
    assert (nine_times.low, nine_times.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_pairing_sees_what_two_intervals_hide() -> None:
    """One system a little worse on every sentence: the intervals overlap, that of the difference leaves 0 out."""
    hard = np.random.default_rng(0).uniform(0, 1, size=30)
    one, other = bootstrap(hard.tolist()), bootstrap((hard + 0.02).tolist())
    assert other.value in one
    difference = bootstrap(np.linspace(0.01, 0.03, 30).tolist())
    assert 0.0 not in difference
    assert pytest.approx(difference.value) == 0.02


def test_a_wider_level_is_a_wider_interval_and_a_seed_repeats_it() -> None:
    values = np.random.default_rng(0).normal(size=50).tolist()
    wide, narrow = bootstrap(values, level=0.99), bootstrap(values, level=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert bootstrap(values, level=0.99) == wide != bootstrap(values, level=0.99, seed=1)


@pytest.mark.parametrize("groups", range(1, FEWEST_GROUPS + 1))
def test_a_few_groups_have_no_interval(groups: int) -> None:
    """Of four the rarest draw, the best group four times, is likelier than what is to be left out."""
    found = bootstrap([float(number) for number in range(2 * groups)], groups=[*range(groups)] * 2)
    assert found.value == groups - 0.5
    assert math.isnan(found.low) == math.isnan(found.high) == (groups < FEWEST_GROUPS)
    assert groups == 1 or (tail_share(groups) < groups**-groups) == (groups < FEWEST_GROUPS)


def test_no_error_in_any_sentence_is_not_certainty() -> None:
    found = bootstrap([0.0] * 30, [9.0] * 30)
    assert str(found) == "0.000"
    assert math.isnan(found.low)
    assert bootstrap([1.0, *[0.0] * 29], [9.0] * 30).high > 1 / 270
    for rate in (1.0, -1.0, 0.1):  # nor is an error in every word
        assert str(bootstrap([rate * words for words in range(5, 12)], list(range(5, 12)))) == f"{rate:.3f}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": -0.95}, "between 0 and 1"),
        ({"level": 95}, "between 0 and 1"),
        ({"draws": 0}, "draws are at least 1"),
        ({"weights": [0.0] * 6}, "not all 0"),
        ({"weights": [-1.0, *[1.0] * 5]}, "from 0 on"),
        ({"weights": [math.nan, *[1.0] * 5]}, "finite numbers, and one is nan"),
    ],
)
def test_bootstrap_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], **options)
    with pytest.raises(ValueError, match="an interval takes two groups"):
        tail_share(1)


def test_without_bounds_nothing_is_ruled_out() -> None:
    assert 0.0 in Interval(0.3, math.nan, math.nan)


def test_interval_reads_as_a_number_with_its_bounds() -> None:
    assert str(Interval(0.196, 0.175, 0.2178)) == "0.196 (0.175 to 0.218)"
    assert str(Interval(0.196, math.nan, math.nan)) == "0.196"
    assert 0.175 in Interval(0.196, 0.175, 0.218)
    assert 0.22 not in Interval(0.196, 0.175, 0.218)


@pytest.mark.parametrize(("values", "weights"), [([], None), ([1.0], [1.0, 2.0])])
def test_bootstrap_of_nothing_or_of_odd_numbers(values: list[float], weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="as many values as weights and groups"):
        bootstrap(values, weights)
