from __future__ import annotations

import re
from random import Random

from internvl_lab.data.miniworld import tasks_language as t


def _solve(prompt: str) -> str:
    """Answer a question by reading it, independently of the generator."""
    numbers = [int(number) for number in re.findall(r"\d+", prompt)]
    letters = re.findall(r"\b[A-Z]\b", prompt)
    if "larger" in prompt or "smaller" in prompt:
        return str(max(numbers) if "larger" in prompt else min(numbers))
    if "+" in prompt or prompt.startswith("Add"):
        return str(sum(numbers))
    if prompt.startswith("Reverse"):
        return " ".join(letters[::-1])
    if "comes first" in prompt or "comes last" in prompt:
        return sorted(letters)[0 if "first" in prompt else -1]
    return letters[{"first": 0, "second": 1, "third": 2, "last": 3}[prompt.split(" ")[3]]]


def test_answers_are_right() -> None:
    rng = Random(0)
    for _ in range(2000):
        question = t.text_only(rng, False).questions[0]
        assert question.answer == _solve(question.prompt), question


def test_there_are_many_different_questions() -> None:
    rng = Random(1)
    prompts = {t.text_only(rng, False).questions[0].prompt for _ in range(30_000)}
    assert len(prompts) > 20_000


def test_question_is_its_own_combination_and_needs_no_picture() -> None:
    draft = t.text_only(Random(2), False)
    assert draft.combinations == (draft.questions[0].prompt,)
    assert draft.paint() == ()
    assert draft.sizes == ()
