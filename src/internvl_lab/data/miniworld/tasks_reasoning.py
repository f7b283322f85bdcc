r"""The optional task reasoning: questions that take several steps, open or with options.

It is off by default (`data.miniworld.tasks=[reasoning,...]` switches it on), so the shipped tasks keep their bytes.
Each question has a direct form, which `val` asks, and a worked one, which half of the training samples hold::

    How many more stars than rings are there?            ->  2
    ... Think step by step ... Answer: \boxed{...}       ->  stars: 3. rings: 1. 3 - 1 = 2.
                                                             Answer: \boxed{2}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from internvl_lab.data.miniworld.draft import Draft, Question
from internvl_lab.data.miniworld.scene import Scene, Thing, arrange, make_grid, paint_scene, random_size
from internvl_lab.data.miniworld.vocabulary import COLORS, PLURALS, SHAPES
from internvl_lab.text.chain_of_thought import LETTER_SUFFIX, boxed, cot_prompt

CHOICE_SHARE = 0.5
"""Share of the questions that come with options."""
NUM_OPTIONS = 4
MIN_OBJECTS, MAX_OBJECTS = 4, 8


@dataclass(frozen=True)
class Problem:
    """Hold one question before it is asked in one way or the other."""

    text: str
    steps: str
    """The way to the answer, each step a sentence."""
    answer: str
    options: tuple[str, ...]
    """Answers to choose from, the right one among them; as many as NUM_OPTIONS at most."""


def reasoning(rng: Random, dense: bool) -> Draft:
    """Draw four to eight objects of two or three shapes and two or three colours; ask what takes several steps."""
    del dense
    shapes, colors = rng.sample(SHAPES, rng.randint(2, 3)), rng.sample(list(COLORS), rng.randint(2, 3))
    number = rng.randint(MIN_OBJECTS, MAX_OBJECTS)
    shown = [*shapes, *rng.choices(shapes, k=number - len(shapes))]
    things = [Thing(rng.choice(colors), shape) for shape in shown]
    rng.shuffle(things)
    scene = arrange(rng, make_grid(random_size(rng, wide_share=0.0), 4), things, (0.68, 0.88))
    problems = [*_pairs(rng, _count_shapes(scene)), *_pairs(rng, _count_colors(scene)), *_most(scene)]
    rng.shuffle(problems)
    asked = [_ask(rng, problem) for problem in problems]
    return Draft(
        questions=tuple(direct for direct, _ in asked),
        worked=tuple(worked for _, worked in asked),
        combinations=(scene.signature,),
        also=(("counting", scene.signature),),
        sizes=((scene.grid.width, scene.grid.height),),
        scenes=(scene.description,),
        paint=lambda: (paint_scene(scene),),
    )


def _count_shapes(scene: Scene) -> dict[str, int]:
    """Count the objects of each shape that is there, under its plural."""
    return {PLURALS[shape]: scene.count(shape) for shape in SHAPES if scene.count(shape)}


def _count_colors(scene: Scene) -> dict[str, int]:
    """Count the objects of each colour that is there, under `red objects`."""
    present = [placed.thing.color for placed in scene.things]
    return {f"{color} objects": present.count(color) for color in COLORS if color in present}


def _pairs(rng: Random, counts: dict[str, int]) -> list[Problem]:
    """Ask for the difference or the sum of each pair of counts."""
    problems = []
    for first, second in combinations(counts, 2):
        a, b = sorted((first, second), key=lambda name: -counts[name])
        high, low = counts[a], counts[b]
        listing = f"{a}: {high}. {b}: {low}."
        if high > low and rng.random() < 0.5:
            text, steps, value = f"How many more {a} than {b} are there?", f"{listing} {high} - {low}", high - low
        else:
            text, steps, value = f"How many {a} and {b} are there together?", f"{listing} {high} + {low}", high + low
        problems.append(Problem(text, f"{steps} = {value}.", str(value), _numbers_near(rng, value)))
    return problems


def _numbers_near(rng: Random, value: int) -> tuple[str, ...]:
    """Draw NUM_OPTIONS consecutive whole numbers from 1 on, `value` among them."""
    first = rng.randint(max(1, value - NUM_OPTIONS + 1), value)
    return tuple(str(first + k) for k in range(NUM_OPTIONS))


def _most(scene: Scene) -> list[Problem]:
    """Ask for the commonest shape, where there is only one."""
    counts = _count_shapes(scene)
    most = max(counts.values())
    if list(counts.values()).count(most) > 1:
        return []
    answer = next(name for name, count in counts.items() if count == most)
    steps = " ".join(f"{name}: {count}." for name, count in counts.items())
    return [Problem("Which shape is there most often?", f"{steps} {most} is the most.", answer, tuple(counts))]


def _ask(rng: Random, problem: Problem) -> tuple[Question, Question]:
    """Ask a problem: (directly, with its steps); both are open or both have the same options."""
    text, answer, steps = problem.text, problem.answer, problem.steps
    if rng.random() < CHOICE_SHARE:
        letter, listing = _list_options(rng, problem.options, answer)
        text = f"{text}\n{listing}\n{LETTER_SUFFIX}"
        steps, answer = f"{steps} {answer} is {letter}.", letter
    return Question(text, answer), Question(cot_prompt(text), f"{steps}\n{boxed(answer)}")


def _list_options(rng: Random, options: Sequence[str], answer: str) -> tuple[str, str]:
    """Shuffle options: (letter of the answer, one line an option)."""
    shuffled = rng.sample(options, len(options))
    letters = [chr(ord("A") + k) for k in range(len(shuffled))]
    listing = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, shuffled, strict=True))
    return letters[shuffled.index(answer)], listing
