import pytest

from internvl_lab.curation.judging.routing import route_by_rules


@pytest.mark.parametrize(
    ("question", "answer", "domain"),
    [
        ("Write a Python function.", "```python\ndef f():\n    return 1\n```", "programming"),
        ("Solve for x: $x^2 = 4$.", r"The equation gives $x = \pm 2$, so \boxed{2}.", "mathematics"),
        ("Which organelle?\nA. Ribosome\nB. Nucleus", "B, because mitosis starts in the nucleus.", "disciplinary"),
        ("求解方程 x", "这个方程的解", "mathematics"),
        ("Write a poem about rain.", "Rain falls.", None),
        ("Prove that this Python code ends.", "```def f``` by the theorem", None),
    ],
)
def test_rules_speak_only_where_one_of_them_is_sure(question, answer, domain):
    assert route_by_rules([("human", question), ("gpt", answer)]) == domain


def test_the_system_turn_does_not_count():
    assert route_by_rules([("system", "You write Python and SQL."), ("human", "Hi"), ("gpt", "Hello")]) is None
