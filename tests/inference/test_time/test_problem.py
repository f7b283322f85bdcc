from __future__ import annotations

from internvl_lab.inference.test_time import Problem
from internvl_lab.text import Turn, cot_prompt


def test_only_the_last_turn_asks_for_steps() -> None:
    turns = (Turn("human", "<image>\nA?"), Turn("gpt", "b"), Turn("human", "C?"))
    problem = Problem("t", "k", turns, "d", lambda *_: True, list)
    assert problem.question == "C?"
    assert problem.asked("direct") == turns
    assert problem.asked("cot") == (*turns[:-1], Turn("human", cot_prompt("C?")))
