import pytest

from internvl_lab.curation.judging.answers import MAX_DETAIL_CHARS, parse_domain, parse_score, reason_of
from internvl_lab.text.judging.judge import Reply


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Good.\nScore: 8", 8.0),
        ("Score: 0", 0.0),
        ("Good.\n\n**Score: 10**\n", 10.0),
        ("Good.\nscore: 7.5", 7.5),
        ("Good.\nScore: 8/10", 8.0),
        ("<think>Score: 2? No.\nScore: 3</think>\nGood.\nScore: 9", 9.0),
        ("Score: 4\nThe reason.\nScore: 4", 4.0),
        ("Score: 4\nOn reflection:\nScore: 6", None),
        ("Score: 8\nI hope this helps!", None),
        ("The score is 8", None),
        ("Score: 11", None),
        ("Score: -1", None),
        ("Score: 8 or 9", None),
        ("Score: 8/100", None),
        ("Score: eight", None),
        ("Score: ٨", None),
        ("Score:", None),
        ("", None),
    ],
)
def test_only_a_final_line_in_the_agreed_form_is_a_score(text, score):
    assert parse_score(Reply(text, 1, 1)) == score


def test_a_cut_answer_is_no_score():
    assert parse_score(Reply("Good.\nScore: 1", 1, 1, is_complete=False)) is None


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("mathematics", "mathematics"),
        (" Programming.\n", "programming"),
        ("<think>hm, code</think>\n\ngeneral", "general"),
        ("mathematics or general", None),
        ("maths", None),
        ("", None),
    ],
)
def test_a_domain_is_one_word(text, domain):
    assert parse_domain(Reply(text, 1, 1)) == domain


def test_the_reason_is_one_short_line_without_the_score():
    assert reason_of(Reply("<think>x</think>The proof\nis circular.\nScore: 2", 1, 1)) == "The proof is circular."
    assert len(reason_of(Reply("long " * 100 + "\nScore: 2", 1, 1))) == MAX_DETAIL_CHARS
