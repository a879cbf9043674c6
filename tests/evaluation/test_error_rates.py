"""Error rates against counts made by hand, bootstrap intervals against theory and against a slow second path."""

from __future__ import annotations

import math
import re

import jiwer
import numpy as np
import pytest

from wandlib.evaluation.error_rates import ErrorCounts, Interval, bootstrap, count_errors, error_rates, normalize
from wandlib.evaluation.recognizers import plain_english


def test_normalize() -> None:
    assert normalize("It's  5 O'CLOCK -- now!") == "it's o'clock now"


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


def test_bad_references() -> None:
    with pytest.raises(ValueError, match="1 references but 2 hypotheses"):
        error_rates(["one"], ["one", "two"])
    with pytest.raises(ValueError, match="reference '123' has no words"):
        error_rates(["one", "123"], ["one", "two"])
    with pytest.raises(ValueError, match="no sentences"):
        error_rates([], [])


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
    errors, words, groups = [3.0, 0.0, 1.0, 2.0, 5.0], [4.0, 6.0, 5.0, 3.0, 9.0], ["a", "b", "a", "c", "b"]
    found = bootstrap(errors, words, groups, draws=2000, seed=3)
    counts = np.random.default_rng(3).multinomial(3, [1 / 3] * 3, size=2000)
    rates = []
    for drawn in counts:
        times = dict(zip("abc", drawn, strict=True))
        total = sum(times[g] * w for g, w in zip(groups, words, strict=True))
        rates.append(sum(times[g] * e for g, e in zip(groups, errors, strict=True)) / total)
    assert found.value == pytest.approx(11 / 27)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(rates, [2.5, 97.5])))


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
    difference = bootstrap(np.full(30, 0.02).tolist())
    assert 0.0 not in difference
    assert pytest.approx(difference.value) == 0.02


def test_a_wider_level_is_a_wider_interval_and_a_seed_repeats_it() -> None:
    values = np.random.default_rng(0).normal(size=50).tolist()
    wide, narrow = bootstrap(values, level=0.99), bootstrap(values, level=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert bootstrap(values, level=0.99) == wide != bootstrap(values, level=0.99, seed=1)


def test_one_group_has_no_interval() -> None:
    found = bootstrap([1.0, 2.0], groups=["same", "same"])
    assert found.value == 1.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_interval_reads_as_a_number_with_its_bounds() -> None:
    assert str(Interval(0.196, 0.175, 0.2178)) == "0.196 (0.175 to 0.218)"
    assert str(Interval(0.196, math.nan, math.nan)) == "0.196"
    assert 0.175 in Interval(0.196, 0.175, 0.218)
    assert 0.22 not in Interval(0.196, 0.175, 0.218)


@pytest.mark.parametrize(("values", "weights"), [([], None), ([1.0], [1.0, 2.0])])
def test_bootstrap_of_nothing_or_of_odd_numbers(values: list[float], weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="as many values as weights and groups"):
        bootstrap(values, weights)
