from __future__ import annotations

import pytest

from internvl_lab.config.curation import RulesConfig
from internvl_lab.curation.planted_words import paragraph, zh_paragraph
from internvl_lab.curation.rules import loops

LIMITS = RulesConfig()


def test_repeated_ngrams_is_the_authors_measure():
    text = " ".join(f"w{i}" for i in range(1000))
    assert loops.repeated_ngrams(f"{text} {text}").score == pytest.approx(991 / 1991)
    assert loops.repeated_ngrams(text).score == 0


@pytest.mark.parametrize("text", ["我们可以看到这张图片。" * 20, "142857" * 40, "thesameagain" * 20])
def test_loops_without_spaces_are_seen(text):
    assert loops.repeated_ngrams(text).score == 0
    assert loops.longest_repeat(text).score > LIMITS.longest_repeat.threshold
    assert loops.longest_loop(text).score > LIMITS.longest_loop.threshold


def test_a_loop_in_the_tail_of_a_long_answer(random):
    sound = paragraph(random, 60, 60)
    loop = loops.longest_loop(f"{sound} {'so we go round and ' * 12}")
    assert loops.longest_repeat(f"{sound} {'so we go round and ' * 12}").score < LIMITS.longest_repeat.threshold
    assert loop.score > LIMITS.longest_loop.threshold
    assert "12 times" in loop.detail or "13 times" in loop.detail


@pytest.mark.parametrize("make", [paragraph, zh_paragraph])
def test_sound_prose_is_quiet(random, make):
    for _ in range(50):
        text = make(random, 5, 20)
        for rule in (loops.repeated_ngrams, loops.longest_loop, loops.character_run, loops.zero_run):
            assert rule(text).score == 0
        assert loops.longest_repeat(text).score < 0.4
        assert loops.compression(text).score < 5


@pytest.mark.parametrize(
    ("text", "score"),
    [("no" + "o" * 30, 31), ("!" * 12, 12), ("." * 100, 5), ("─" * 40, 2), ("0" * 50, 0), ("a" * 7, 0)],
)
def test_runs_of_one_character(text, score):
    assert loops.character_run(text).score == score


@pytest.mark.parametrize(
    ("text", "zeros"),
    [
        ("0" * 60, 60),
        ("0 " * 60, 60),
        ("0, " * 60, 60),
        ("0.0\n" * 30, 60),
        ("| 0 | 0 | 0 |\n" * 30, 0),
        ("[0, 0, 0],\n" * 30, 0),
        ("a million is 1,000,000", 0),
        ("1" + "0" * 36, 36),
    ],
)
def test_zeros_in_a_row(text, zeros):
    assert loops.zero_run(text).score == zeros


def test_compression_is_the_ratio_of_bytes():
    assert loops.compression("ab" * 100).score == 0  # too short to say anything
    assert loops.compression("ab" * 1000).score > 50
