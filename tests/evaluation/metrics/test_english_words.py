"""English words: each case was split by spaCy 3.8.18, `spacy.blank("en")`, the tokenizer of `en_core_web_sm`."""

from __future__ import annotations

import pytest

from internvl_lab.evaluation.metrics.english_words import split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the quick brown fox", ["the", "quick", "brown", "fox"]),
        ("A man cannot wait...", ["A", "man", "can", "not", "wait", "..."]),
        ("don't (can't) DON'T", ["do", "n't", "(", "ca", "n't", ")", "DON'T"]),
        ("it’s the dogs' well-known toy", ["it", "’s", "the", "dogs", "'", "well", "-", "known", "toy"]),
        ("St. Paul, Minn. vs. the U.S.", ["St.", "Paul", ",", "Minn.", "vs.", "the", "U.S."]),
        ("the 5th of 1980s-style", ["the", "5th", "of", "1980s", "-", "style"]),
        ("10:30 a.m., 7pm", ["10:30", "a.m.", ",", "7", "pm"]),
        ("$5.99 (50%) 3km 1/2", ["$", "5.99", "(", "50", "%", ")", "3", "km", "1/2"]),
        ("COVID-19 and/or 2019-2020", ["COVID-19", "and/or", "2019", "-", "2020"]),
        ("tennis/golf, Fig.2", ["tennis", "/", "golf", ",", "Fig.2"]),
        ("see http://a.bc/d-e, me@x-y.org", ["see", "http://a.bc/d-e", ",", "me@x-y.org"]),
        ("end.Start “quoted”", ["end", ".", "Start", "“", "quoted", "”"]),
        ("(2021): and :)", ["(", "2021", "):", "and", ":)"]),
        ("a  b\nc ", ["a", " ", "b", "\n", "c"]),
        (" a", [" ", "a"]),
        ("C++ C# 25°C. N.Y.", ["C++", "C", "#", "25", "°", "C", ".", "N.Y."]),
        ("I'd've gone; y'all gonna?", ["I", "'d", "'ve", "gone", ";", "y'", "all", "gon", "na", "?"]),
        ("its ill were Its", ["its", "ill", "were", "Its"]),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words
