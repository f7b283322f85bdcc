"""The authors' rule on texts counted by hand, and what it misses."""

from __future__ import annotations

import pytest

from internvl_lab.text import is_looping, repeated_ngram_share


def words(count: int, start: int = 0) -> str:
    return " ".join(f"w{k}" for k in range(start, start + count))


def test_share_by_hand() -> None:
    # 2-grams of "a b a b c": ab, ba, ab, bc; only ab repeats: 1 distinct of 4.
    assert repeated_ngram_share("a b a b c", n=2) == 0.25


def test_text_without_repetition_scores_zero() -> None:
    assert repeated_ngram_share(words(200)) == 0.0
    assert not is_looping(words(200))


def test_text_shorter_than_one_ngram_scores_zero() -> None:
    assert repeated_ngram_share("no no no", n=10) == 0.0
    assert not is_looping("")


def test_a_doubled_text_nears_one_half() -> None:
    text = f"{words(1000)} {words(1000)}"
    assert repeated_ngram_share(text) == pytest.approx(991 / 1991)
    assert is_looping(text)


def test_tight_loop_is_caught_although_the_authors_rule_misses_it() -> None:
    text = "the answer is no . " * 100
    assert repeated_ngram_share(text) < 0.05
    assert is_looping(text)


def test_every_text_over_the_authors_threshold_is_looping() -> None:
    for copies in range(1, 6):
        for unique in (0, 20, 200):
            text = " ".join([words(50)] * copies + [words(unique, start=1000)])
            assert not repeated_ngram_share(text) > 0.4 or is_looping(text)


def test_threshold_is_exclusive() -> None:
    assert not is_looping("a a", n=1, threshold=0.5)
    assert is_looping("a a a", n=1, threshold=0.5)


def test_ngram_of_no_words_is_refused() -> None:
    with pytest.raises(ValueError, match="n=0"):
        repeated_ngram_share("a b", n=0)
