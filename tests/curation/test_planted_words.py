from random import Random

from internvl_lab.curation.planted_words import line, paragraph, phrase, sentence, words, zh_paragraph, zh_sentence


def test_no_slot_is_left_open_and_hardly_a_sentence_comes_twice():
    rng = Random(0)
    for make in (sentence, line, phrase, zh_sentence, paragraph, zh_paragraph):
        made = [make(rng) for _ in range(200)]
        assert not any("{" in text for text in made)
        assert len(set(made)) > 190


def test_words():
    assert words(" a  b\nc ") == ("a", "b", "c")
