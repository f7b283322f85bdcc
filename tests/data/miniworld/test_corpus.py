from __future__ import annotations

import re

from internvl_lab.data.miniworld import tokenizer_corpus


def test_corpus_is_reproducible_and_has_words_but_no_random_strings() -> None:
    texts = list(tokenizer_corpus(220, 0))
    assert texts == list(tokenizer_corpus(220, 0))
    everything = "\n".join(texts)
    assert "How many" in everything
    assert "circle" in everything
    assert "<box>[[" in everything
    assert not re.search(r"[A-Z][A-Z]", everything)
    assert re.search(r"\[\[\d+, \d+, \d+, \d+\]\]", everything)  # numbers stay
    assert all(texts)
