from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from internvl_lab.config import MiniworldConfig
from internvl_lab.data.miniworld import generate, text_twin
from internvl_lab.data.miniworld import tasks_reasoning as t
from internvl_lab.data.miniworld.build import ensure_shards
from internvl_lab.data.miniworld.draft import Draft
from internvl_lab.data.miniworld.vocabulary import PLURALS
from internvl_lab.text.chain_of_thought import LETTER_SUFFIX, cot_prompt, options_of

SINGULAR = {plural: shape for shape, plural in PLURALS.items()}


def counts_of(draft: Draft) -> Counter[str]:
    """Count every name that a question may use, from the description alone."""
    words = [thing.split(" at ")[0].split() for thing in draft.scenes[0].split("; ")]
    return Counter([PLURALS[shape] for _, shape in words] + [f"{color} objects" for color, _ in words])


def solve(question: str, counts: Counter[str]) -> str:
    """Answer a question from the counts."""
    text = question.splitlines()[0]
    if match := re.fullmatch(r"How many more (.+) than (.+) are there\?", text):
        return str(counts[match[1]] - counts[match[2]])
    if match := re.fullmatch(r"How many (.+) and (.+) are there together\?", text):
        return str(counts[match[1]] + counts[match[2]])
    assert text == "Which shape is there most often?"
    shapes = Counter({name: count for name, count in counts.items() if name in SINGULAR})
    (first, most), *others = shapes.most_common()
    assert all(count < most for _, count in others)
    return first


@pytest.fixture(scope="module")
def drafts() -> list[Draft]:
    rng = Random(0)
    return [t.reasoning(rng, False) for _ in range(300)]


def test_answers_follow_from_the_scene(drafts: list[Draft]) -> None:
    for draft in drafts:
        counts = counts_of(draft)
        assert draft.questions and len(draft.questions) == len(draft.worked)
        for question in draft.questions:
            options = options_of(question.prompt)
            expected = solve(question.prompt, counts)
            assert (options[question.answer] if options else question.answer) == expected
            assert bool(options) == question.prompt.endswith(LETTER_SUFFIX)
            assert len(set(options.values())) == len(options)


def test_worked_answers_show_their_steps(drafts: list[Draft]) -> None:
    for draft in drafts:
        counts = counts_of(draft)
        for direct, worked in zip(draft.questions, draft.worked, strict=True):
            assert worked.prompt == cot_prompt(direct.prompt) and LETTER_SUFFIX not in worked.prompt
            steps, last = worked.answer.split("\n")
            assert last == rf"Answer: \boxed{{{direct.answer}}}"
            found = re.findall(r"([a-z ]+): (\d+)\.", steps)
            assert found and all(counts[name.strip()] == int(count) for name, count in found)
            for a, sign, b, c in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", steps):
                assert int(a) + (int(b) if sign == "+" else -int(b)) == int(c)


def test_kinds_are_balanced(drafts: list[Draft]) -> None:
    first = [draft.questions[0] for draft in drafts]
    choice = sum(bool(options_of(question.prompt)) for question in first) / len(first)
    assert choice == pytest.approx(t.CHOICE_SHARE, abs=0.1)
    letters = Counter(question.answer for question in first if options_of(question.prompt))
    assert set(letters) == set("ABCD") and max(letters.values()) < 0.5 * letters.total()


def test_training_holds_both_forms_and_val_the_direct_one() -> None:
    training = list(generate("finetune", 200, 0, ["reasoning"]))
    worked = ["Think step by step" in sample.record["conversations"][0]["value"] for sample in training]
    assert sum(worked) / len(worked) == pytest.approx(0.5, abs=0.1)
    val = list(generate("val", 60, 0, ["reasoning"]))
    assert all("Think step by step" not in sample.record["conversations"][0]["value"] for sample in val)
    assert all("\n" not in sample.record["answer"] for sample in val)
    assert not {s.record["combination"] for s in training} & {s.record["combination"] for s in val}


def test_it_has_a_text_twin() -> None:
    (sample,) = generate("finetune", 1, 0, ["reasoning"])
    twin = text_twin(sample)
    assert twin is not None and sample.record["scenes"][0] in twin.record["conversations"][0]["value"]


def test_it_is_made_only_where_it_is_named(tmp_path: Path) -> None:
    assert "reasoning" not in {sample.record["task"] for sample in generate("val", 22, 0)}
    config = MiniworldConfig(0, 0, 4, 0, 4, tasks=("reasoning", "counting"))
    assert set(ensure_shards(config, tmp_path, 1)) == {"finetune", "val"}
    assert [sample.record["task"] for sample in generate("val", 4, 0, config.tasks)] == ["reasoning", "counting"] * 2
