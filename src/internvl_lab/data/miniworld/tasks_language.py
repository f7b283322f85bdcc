"""The task text_only: small questions that need no picture, some 500,000 different ones."""

from __future__ import annotations

from random import Random
from string import ascii_uppercase

from internvl_lab.data.miniworld.draft import Draft, Question

ORDINALS = ("first", "second", "third", "last")


def _compare(rng: Random) -> Question:
    """Ask for the larger or the smaller of two numbers below 100."""
    a, b = rng.sample(range(10, 100), 2)
    if rng.random() < 0.5:
        return Question(f"Which is larger, {a} or {b}?", str(max(a, b)))
    return Question(f"Which is smaller, {a} or {b}?", str(min(a, b)))


def _reverse(rng: Random) -> Question:
    """Ask for three letters in reverse order."""
    letters = rng.sample(ascii_uppercase, 3)
    return Question(f"Reverse {' '.join(letters)}.", " ".join(reversed(letters)))


def _pick(rng: Random) -> Question:
    """Ask for one of four letters by its position."""
    letters = rng.sample(ascii_uppercase, 4)
    index = rng.randrange(4)
    return Question(f"What is the {ORDINALS[index]} letter of {' '.join(letters)}?", letters[index])


def _alphabet(rng: Random) -> Question:
    """Ask which of two letters comes first or last in the alphabet."""
    a, b = rng.sample(ascii_uppercase, 2)
    if rng.random() < 0.5:
        return Question(f"Which letter comes first, {a} or {b}?", min(a, b))
    return Question(f"Which letter comes last, {a} or {b}?", max(a, b))


def _add(rng: Random) -> Question:
    """Ask for a sum below 20."""
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    return Question(rng.choice(("What is {} + {}?", "Add {} and {}.", "{} + {} = ?")).format(a, b), str(a + b))


_KINDS = (_compare,) * 8 + (_reverse,) * 5 + (_pick,) * 4 + (_alphabet,) * 2 + (_add,)


def text_only(rng: Random, dense: bool) -> Draft:
    """Draw a question whose own text is its combination."""
    del dense
    question = rng.choice(_KINDS)(rng)
    return Draft(questions=(question,), combinations=(question.prompt,))
