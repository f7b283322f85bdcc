from hypothesis import given
from hypothesis import strategies as st

from internvl_lab.curation.review.highlight import SHINGLE_CHARS, marked_parts, repeated_spans


def test_only_the_repetition_is_marked():
    sentence = "The picture shows a red disc. "
    text = "First:" + sentence * 3 + "Last."
    assert repeated_spans(text) == [(6 + len(sentence), 6 + 3 * len(sentence))]


def test_loops_without_spaces_are_found():
    assert repeated_spans("图中有一个红色的圆和一个蓝色的方框。" * 3) == [(18, 54)]
    assert repeated_spans("value 0." + "0" * 100) == [(9, 108)]


def test_plain_text_and_short_text_have_no_marks():
    assert repeated_spans("A red disc stands to the left of a blue frame, and nothing else is to be seen.") == []
    assert repeated_spans("ha ha ha") == []
    assert repeated_spans("") == []


def test_a_long_text_is_cut_and_says_so():
    parts = marked_parts("abc " * 1000, 100)
    assert "".join(part for part, _ in parts) == "abc " * 25 + "\n[... 3900 more characters]"
    assert [repeated for _, repeated in parts] == [False, True, False]


@given(st.text(alphabet="ab", max_size=120))
def test_the_parts_are_the_text(text):
    parts = marked_parts(text, 1000)
    assert "".join(part for part, _ in parts) == text
    for start, stop in repeated_spans(text):
        assert stop - start >= SHINGLE_CHARS
        assert text[start : start + SHINGLE_CHARS] in text[: start + SHINGLE_CHARS - 1]
