"""The authors' rule on texts counted by hand, and what it misses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_lab.text import is_looping, looping_share, measure_repetition, repeated_ngram_share
from internvl_lab.text.repetition import WINDOW, find_repeats, ngram_excess


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


def slow_longest_repeat(text: str) -> int:
    """Length of the longest substring that occurs twice, by comparing all pairs of suffixes."""
    longest = 0
    for first in range(len(text)):
        for second in range(first + 1, len(text) - longest):
            length = 0
            while second + length < len(text) and text[first + length] == text[second + length]:
                length += 1
            longest = max(longest, length)
    return longest


@given(st.lists(st.sampled_from(["abcdefgh", "ijkl", "数字和汉字", "0123456789", "xyz", " "]), max_size=14))
def test_longest_repeat_equals_the_slow_one(parts: list[str]) -> None:
    text = "".join(parts)
    repeat, _ = find_repeats(text)
    expected = slow_longest_repeat(text)
    assert repeat.length == (expected if expected >= max(WINDOW, len(text) // 8) else 0)
    copied = text[repeat.start : repeat.start + repeat.length]
    assert text[repeat.start - repeat.period :].startswith(copied)


@given(st.text(min_size=2, max_size=20), st.text(max_size=300))
def test_a_loop_is_found_behind_anything(unit: str, before: str) -> None:
    if len({c for c in unit if c.isalnum()}) < 2:
        return
    text = before + unit * (200 // len(unit) + 3)
    _, loop = find_repeats(text)
    assert loop.length >= len(unit) * (200 // len(unit) + 2)
    assert len(unit) % loop.period == 0
    assert all(text[i] == text[i - loop.period] for i in range(loop.start, loop.start + loop.length))


def test_twice_is_no_loop_but_a_repeat() -> None:
    text = words(100)
    repeat, loop = find_repeats(f"{text} {text}")
    assert repeat.length == len(text)
    assert loop.length == 0


def test_excess_by_hand() -> None:
    assert ngram_excess("a b a b c", n=2) == 0.25
    assert ngram_excess("a a a a", n=1) == 0.75


@pytest.mark.parametrize(
    "text",
    ["the answer is no . " * 100, "不知道，" * 40, "1234567" * 30, words(60) + " and so on" * 30, words(200) * 2],
)
def test_every_kind_of_loop_is_called_one(text: str) -> None:
    assert measure_repetition(text).looping


@pytest.mark.parametrize("text", ["", "red", "ha ha ha", words(300), "_" * 300, "| 0 | 1 | 2 |\n" * 2])
def test_what_is_no_loop_is_not_called_one(text: str) -> None:
    assert not measure_repetition(text).looping


def test_share_of_looping_answers() -> None:
    assert looping_share(["yes", "no " * 100]) == 0.5
    assert looping_share([]) == 0.0
