from __future__ import annotations

import pytest

from internvl_lab.curation.planted_words import phrase, sentence
from internvl_lab.curation.rules.sentences import (
    repeated_clauses,
    repeated_lines,
    repeated_sentences,
    sentence_length,
)


def test_share_of_repeated_lines_by_hand():
    text = "\n".join(["a line of text"] * 4 + [f"another line {i}" for i in range(4)])
    assert repeated_lines(text).score == 3 / 8
    assert "4 times a line of text" in repeated_lines(text).detail


@pytest.mark.parametrize("text", ["}\n" * 30, '"key": 1,\n' * 30, "a line of text\n" * 7, "return None\n" * 20])
def test_lines_of_code_and_few_lines_do_not_count(text):
    assert repeated_lines(text).score == 0


def test_a_closing_sentence_that_follows_itself():
    closing = "Overall, the scene conveys a sense of calm."
    assert repeated_sentences(f"A harbour. {closing} {closing}").score == 1
    assert repeated_sentences(f"A harbour. {closing} {closing} {closing}").score == 2
    assert repeated_sentences("这幅图画给人一种平静的感觉。" * 2).score == 1


def test_refrains_and_short_sentences_may_follow_themselves():
    assert repeated_sentences("Row, row, row your boat gently down the stream.\n" * 3).score == 0
    assert repeated_sentences("No. No. No. Oh no. Oh no.").score == 0


def test_circular_reasoning_behind_other_connectives(random):
    claims = [sentence(random)[:-1].lower() for _ in range(3)]
    starts = ["Since", "Therefore", "Thus", "But then", "Hence"]
    circle = " ".join(f"{starts[i % 5]} {claims[i % 3]}." for i in range(15))
    assert repeated_clauses(circle).score == pytest.approx(12 / 15, abs=0.03)


def test_a_song_with_a_refrain_is_below_the_limit(random):
    chorus = [sentence(random) for _ in range(4)]
    verses = [[sentence(random) for _ in range(4)] for _ in range(3)]
    assert repeated_clauses("\n".join(line for verse in verses for line in verse + chorus)).score < 0.45


def test_a_sentence_without_end(random):
    assert sentence_length("It " + " and ".join(phrase(random) for _ in range(60))).score > 200
    assert sentence_length(" ".join(sentence(random) for _ in range(60))).score == 0


@pytest.mark.parametrize("text", ["<p>word</p>" * 300, "{a:b};" * 300, "QWdBaU" * 300, "x1 + y2 = z3 " * 200])
def test_markup_code_and_formulas_are_no_sentences(text):
    assert sentence_length(text).score < 200


def test_chinese_characters_count_as_words():
    assert sentence_length("我们看到" * 100).score == 400
