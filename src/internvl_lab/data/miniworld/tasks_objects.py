"""Tasks about the objects of one scene: captioning, counting, attribute, existence, grounding."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from internvl_lab.data.miniworld.draft import Draft, Question
from internvl_lab.data.miniworld.scene import (
    Grid,
    Placed,
    Scene,
    Thing,
    arrange,
    article,
    make_grid,
    paint_scene,
    random_size,
    random_thing,
    random_things,
)
from internvl_lab.data.miniworld.vocabulary import COLORS, PLURALS, SHAPES

CAPTION_PROMPTS = ("Describe the image.", "What is in the image?")
COUNT_PROMPTS = ("How many {} are there?", "Count the {}.")
COLOR_PROMPTS = ("What color is the {}?", "Which color does the {} have?")
SHAPE_PROMPTS = ("What shape is the {} object?", "Which shape is {}?")
TOTAL_PROMPT = "How many objects are there?"
EXIST_PROMPTS = ("Is there {} {}?", "Can you see {} {}?")
COLOR_EXISTS_PROMPT = "Is anything {}?"
SHAPE_EXISTS_PROMPT = "Is any object a {}?"
SIDE_PROMPT = "Is the {} on the left or on the right?"
LEVEL_PROMPT = "Is the {} at the top or at the bottom?"
BOX_PROMPTS = ("Where is the {}?", "Please provide the bounding box of <ref>{}</ref>.")
TABLE_PROMPT = "List every cell."
TALLY_PROMPT = "Count every shape."
ALL_BOXES_PROMPT = "Locate every object."

LATTICE = 8
"""Boxes of grounding lie on a lattice of 8 x 8 units, 14 pixels (one patch) each in a 112 pixel tile."""


def _scene_draft(scene: Scene, questions: list[Question], combination: str, dense: tuple[Question, ...] = ()) -> Draft:
    """Bundle a painted-on-demand scene with its questions; every scene can also be asked for its table."""
    return Draft(
        questions=tuple(questions),
        combinations=(combination,),
        also=tuple((task, scene.signature) for task in ("attribute", "existence")),
        dense=(Question(TABLE_PROMPT, scene.table), *dense),
        sizes=((scene.grid.width, scene.grid.height),),
        scenes=(scene.description,),
        paint=lambda: (paint_scene(scene),),
    )


def color_question(rng: Random, thing: Thing) -> Question:
    """Ask for the colour of the only object of a shape."""
    return Question(rng.choice(COLOR_PROMPTS).format(thing.shape), thing.color)


def shape_question(rng: Random, thing: Thing) -> Question:
    """Ask for the shape of the only object of a colour."""
    return Question(rng.choice(SHAPE_PROMPTS).format(thing.color), thing.shape)


def captioning(rng: Random, dense: bool) -> Draft:
    """Draw one to three objects; the answer names them in reading order."""
    del dense
    number = rng.choice((1, 2, 2, 3, 3))
    scene = arrange(rng, make_grid(random_size(rng), 2), [random_thing(rng) for _ in range(number)])
    asked = [Question(rng.choice(CAPTION_PROMPTS), scene.caption)]
    return _scene_draft(scene, asked + _further(rng, scene), scene.caption)


def counting(rng: Random, dense: bool) -> Draft:
    """Draw one to five objects of the asked shape, uniformly, and up to three others."""
    del dense
    asked, *others = rng.sample(SHAPES, 3)
    wanted = rng.randint(1, 5)
    shapes = [asked] * wanted + [rng.choice(others) for _ in range(rng.randint(0, 3))]
    rng.shuffle(shapes)
    grid = make_grid(random_size(rng, wide_share=0.05), 4)
    scene = arrange(rng, grid, [Thing(rng.choice(list(COLORS)), shape) for shape in shapes], (0.68, 0.88))
    present = [shape for shape in SHAPES if scene.count(shape)]
    order = [asked, *(shape for shape in present if shape != asked)]
    questions = [Question(rng.choice(COUNT_PROMPTS).format(PLURALS[s]), str(scene.count(s))) for s in order]
    questions.append(Question(TOTAL_PROMPT, str(len(shapes))))
    tally = ", ".join(f"{shape} {scene.count(shape)}" for shape in present)
    return _scene_draft(scene, questions, scene.signature, (Question(TALLY_PROMPT, tally),))


def attribute(rng: Random, dense: bool) -> Draft:
    """Draw two to four objects; ask for the colour or the shape of one that is told apart by the other."""
    del dense
    questions: list[Question] = []
    while not questions:
        things = random_things(rng, rng.randint(2, 4))
        questions = _attribute_questions(rng, things)
    scene = arrange(rng, make_grid(random_size(rng), 2), things)
    return _scene_draft(scene, questions + _existence_questions(rng, things), scene.signature)


def _attribute_questions(rng: Random, things: Sequence[Thing]) -> list[Question]:
    """Ask, in random order, for every colour and shape that one thing alone has the other of."""
    shapes, colors = [t.shape for t in things], [t.color for t in things]
    questions = [color_question(rng, t) for t in things if shapes.count(t.shape) == 1]
    questions += [shape_question(rng, t) for t in things if colors.count(t.color) == 1]
    rng.shuffle(questions)
    return questions


def _absent_thing(rng: Random, things: Sequence[Thing], hard: bool) -> Thing:
    """Name something that is not there; if `hard`, its colour and shape both are, on different objects."""
    mixed = [Thing(a.color, b.shape) for a in things for b in things if Thing(a.color, b.shape) not in things]
    return rng.choice(mixed) if hard and mixed else random_things(rng, 1, avoid=things)[0]


def existence(rng: Random, dense: bool) -> Draft:
    """Draw two or three objects; ask for one of them or, as often, for one that is absent."""
    del dense
    things = random_things(rng, rng.randint(2, 3))
    scene = arrange(rng, make_grid(random_size(rng), 2), things)
    questions = _existence_questions(rng, things) + _presence_questions(rng, things)
    questions += _existence_questions(rng, things) + _attribute_questions(rng, things)
    return _scene_draft(scene, questions, scene.signature)


def _existence_questions(rng: Random, things: Sequence[Thing]) -> list[Question]:
    """Ask for one thing that is there and for one that is absent, in random order."""
    asked = [
        (rng.choice(things), "yes"),
        (_absent_thing(rng, things, hard=rng.random() < 0.5), "no"),
    ]
    rng.shuffle(asked)
    return [
        Question(rng.choice(EXIST_PROMPTS).format(article(thing.color), thing.name), answer) for thing, answer in asked
    ]


def _presence_questions(rng: Random, things: Sequence[Thing]) -> list[Question]:
    """Ask for a colour alone and for a shape alone, each there as often as not: the steps towards asking for both."""
    questions = []
    for prompt, words, there in (
        (COLOR_EXISTS_PROMPT, list(COLORS), {t.color for t in things}),
        (SHAPE_EXISTS_PROMPT, list(SHAPES), {t.shape for t in things}),
    ):
        wanted = rng.random() < 0.5
        word = rng.choice([w for w in words if (w in there) == wanted])
        questions.append(Question(prompt.format(word), "yes" if wanted else "no"))
    return questions


def _further(rng: Random, scene: Scene) -> list[Question]:
    """Ask attribute and existence questions about a scene that another task made."""
    things = [placed.thing for placed in scene.things]
    questions = _attribute_questions(rng, things) + _existence_questions(rng, things)
    rng.shuffle(questions)
    return questions


def _overlaps(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """Tell whether two boxes share area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _lattice_boxes(rng: Random, number: int, columns: int, rows: int) -> list[tuple[int, int, int, int]]:
    """Draw disjoint boxes in lattice units, 3 to 4 units wide and 3 to 5 units high."""
    boxes: list[tuple[int, int, int, int]] = []
    attempts = 0
    while len(boxes) < number:
        attempts += 1
        if attempts % 50 == 0:  # the first boxes may leave no room for the last
            boxes = []
        width = rng.randint(3, 4)
        height = max(3, width + rng.randint(-1, 1))
        x, y = rng.randint(0, columns - width), rng.randint(0, rows - height)
        box = (x, y, x + width, y + height)
        if not any(_overlaps(box, other) for other in boxes):
            boxes.append(box)
    return boxes


def format_box(thing: Thing, box: tuple[int, int, int, int], width: int, height: int) -> str:
    """Write a pixel box the way the authors do: thousandths of the picture's size. Source: spec section 7."""
    x0, x1 = (round(1000 * x / width) for x in (box[0], box[2]))
    y0, y1 = (round(1000 * y / height) for y in (box[1], box[3]))
    return f"<ref>{thing.name}</ref><box>[[{x0}, {y0}, {x1}, {y1}]]</box>"


def grounding(rng: Random, dense: bool) -> Draft:
    """Draw two or three objects on the lattice; ask for the box of one."""
    del dense
    unit = rng.randint(13, 17)
    wide = rng.choice(((2, 1), (1, 2))) if rng.random() < 0.08 else (1, 1)
    columns, rows = LATTICE * wide[0], LATTICE * wide[1]
    width, height = columns * unit, rows * unit
    things = random_things(rng, rng.randint(2, 3))
    units = _lattice_boxes(rng, len(things), columns, rows)
    pairs = sorted(zip(units, things, strict=True), key=lambda pair: (pair[0][1], pair[0][0]))
    placed = tuple(_place_box(thing, box, unit, columns, rows) for box, thing in pairs)
    scene = Scene(Grid(width, height, 1, 1), placed, rng.getrandbits(32))
    answers = [format_box(p.thing, p.box, width, height) for p in placed]
    order = rng.sample(range(len(placed)), len(placed))
    boxes = [Question(rng.choice(BOX_PROMPTS).format(placed[k].thing.name), answers[k]) for k in order]
    halves = [question for k in order for question in _half_questions(placed[k])]
    return Draft(
        questions=(boxes[0], *halves[:2], *boxes[1:], *halves[2:], *_further(rng, scene)),
        combinations=tuple(f"{wide[0]}:{wide[1]} {answers[k]}" for k in order),
        also=tuple((task, scene.signature) for task in ("attribute", "existence")),
        dense=(Question(ALL_BOXES_PROMPT, "\n".join(answers)),),
        sizes=((width, height),),
        scenes=("; ".join(_describe_box(answer) for answer in answers),),
        paint=lambda: (paint_scene(scene),),
    )


def _place_box(thing: Thing, box: tuple[int, int, int, int], unit: int, columns: int, rows: int) -> Placed:
    """Put a thing into a box of the lattice, `unit` pixels a step, and say in which halves its centre lies."""
    x0, y0, x1, y1 = box
    across = "left" if x0 + x1 < columns else "right" if x0 + x1 > columns else ""
    down = "top" if y0 + y1 < rows else "bottom" if y0 + y1 > rows else ""
    return Placed(thing, 0, 0, (x0 * unit, y0 * unit, x1 * unit, y1 * unit), f"{across} {down}".strip())


def _half_questions(placed: Placed) -> list[Question]:
    """Ask for the half of a picture, across and down, that a thing's centre lies in; nothing if it is in between."""
    return [
        Question((SIDE_PROMPT if half in ("left", "right") else LEVEL_PROMPT).format(placed.thing.name), half)
        for half in placed.half.split()
    ]


def _describe_box(answer: str) -> str:
    """Turn a box answer into the plain words of a scene description: `red circle 71 143 357 429`."""
    for mark in ("<ref>", "</box>", "[[", "]]", ","):
        answer = answer.replace(mark, "")
    return answer.replace("</ref><box>", " ")
