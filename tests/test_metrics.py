"""Error rates against counts made by hand, and recogniser and speaker encoder at their edges."""

import numpy as np
import pytest

from wandlib.metrics import PocketSphinx, Resemblyzer, error_rates, normalise, similarity


def test_normalise() -> None:
    assert normalise("It's  5 O'CLOCK -- now!") == "it's o'clock now"


def test_error_rates_by_hand() -> None:
    # "the cat sat" / "the bat": one substitution and one deletion over three words; b for c and " sat" gone, 5 of 11.
    rates = error_rates(["The cat sat."], ["the bat"])
    assert rates.wer == pytest.approx(2 / 3)
    assert rates.cer == pytest.approx(5 / 11)


def test_error_rates_pool_all_sentences() -> None:
    rates = error_rates(["one two three four", "five"], ["one two three four", "six"])
    assert rates.wer == pytest.approx(1 / 5)


def test_more_words_than_there_were() -> None:
    assert error_rates(["one"], ["two three four"]).wer == pytest.approx(3)


def test_bad_references() -> None:
    with pytest.raises(ValueError, match="1 references but 2 hypotheses"):
        error_rates(["one"], ["one", "two"])
    with pytest.raises(ValueError, match="reference 1 has no words"):
        error_rates(["one", "123"], ["one", "two"])


def test_the_recogniser_refuses_nan() -> None:
    recognise = PocketSphinx()
    with pytest.raises(ValueError, match="NaN"):
        recognise(np.full(16_000, np.nan, np.float32), 16_000)


def test_similarity_is_a_cosine() -> None:
    assert similarity(np.array([1.0, 0.0], np.float32), np.array([2.0, 0.0], np.float32)) == pytest.approx(1)
    assert similarity(np.array([1.0, 0.0], np.float32), np.array([0.0, 3.0], np.float32)) == pytest.approx(0)


def test_a_voice_is_itself_at_any_level_and_rate() -> None:
    generator = np.random.default_rng(0)
    time = np.arange(48_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20)) * (1 + np.sin(2 * np.pi * 3 * time))
    sound = (0.05 * voice + 0.001 * generator.normal(size=len(time))).astype(np.float32)
    encode = Resemblyzer()
    own = encode(sound, 16_000)
    assert np.linalg.norm(own) == pytest.approx(1, abs=1e-3)
    assert similarity(own, encode(0.1 * sound, 16_000)) > 0.99
    assert similarity(own, encode(np.repeat(sound, 2), 32_000)) > 0.9
