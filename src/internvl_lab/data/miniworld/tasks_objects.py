"""Tasks about the objects of one scene: captioning, counting, attribute, existence, grounding."""

from __future__ import annotations

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
EXIST_PROMPTS = ("Is there {} {}?", "Can you see {} {}?")
BOX_PROMPTS = ("Where is the {}?", "Please provide the bounding box of <ref>{}</ref>.")
TABLE_PROMPT = "List every cell."
TALLY_PROMPT = "Count every shape."
ALL_BOXES_PROMPT = "Locate every object."

LATTICE = 14
"""Boxes of grounding lie on a lattice of 14 x 14 units, 8 pixels each in a 112 pixel tile."""


def _scene_draft(scene: Scene, questions: list[Question], combination: str, dense: tuple[Question, ...] = ()) -> Draft:
    """Bundle a painted-on-demand scene with its questions; every scene can also be asked for its table."""
    return Draft(
        questions=tuple(questions),
        combinations=(combination,),
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
    return _scene_draft(scene, [Question(rng.choice(CAPTION_PROMPTS), scene.caption)], scene.caption)


def counting(rng: Random, dense: bool) -> Draft:
    """Draw one to six objects of the asked shape, uniformly, and up to three others."""
    del dense
    asked, *others = rng.sample(SHAPES, 3)
    wanted = rng.randint(1, 6)
    shapes = [asked] * wanted + [rng.choice(others) for _ in range(rng.randint(0, 3))]
    rng.shuffle(shapes)
    grid = make_grid(random_size(rng, wide_share=0.05), 3 if rng.random() < 0.5 else 4)
    scene = arrange(rng, grid, [Thing(rng.choice(list(COLORS)), shape) for shape in shapes], (0.68, 0.88))
    present = [shape for shape in SHAPES if scene.count(shape)]
    order = [asked, *(shape for shape in present if shape != asked)]
    questions = [Question(rng.choice(COUNT_PROMPTS).format(PLURALS[s]), str(scene.count(s))) for s in order]
    tally = ", ".join(f"{shape} {scene.count(shape)}" for shape in present)
    return _scene_draft(scene, questions, scene.signature, (Question(TALLY_PROMPT, tally),))


def attribute(rng: Random, dense: bool) -> Draft:
    """Draw two to four objects; ask for the colour or the shape of one that is told apart by the other."""
    del dense
    questions: list[Question] = []
    while not questions:
        things = random_things(rng, rng.randint(2, 4))
        shapes, colors = [t.shape for t in things], [t.color for t in things]
        questions = [color_question(rng, t) for t in things if shapes.count(t.shape) == 1]
        questions += [shape_question(rng, t) for t in things if colors.count(t.color) == 1]
    rng.shuffle(questions)
    scene = arrange(rng, make_grid(random_size(rng), 2), things)
    return _scene_draft(scene, questions, scene.signature)


def _absent_thing(rng: Random, things: list[Thing], hard: bool) -> Thing:
    """Name something that is not there; if `hard`, its colour and shape both are, on different objects."""
    mixed = [Thing(a.color, b.shape) for a in things for b in things if Thing(a.color, b.shape) not in things]
    return rng.choice(mixed) if hard and mixed else random_things(rng, 1, avoid=things)[0]


def existence(rng: Random, dense: bool) -> Draft:
    """Draw two or three objects; ask for one of them or, as often, for one that is absent."""
    del dense
    things = random_things(rng, rng.randint(2, 3))
    scene = arrange(rng, make_grid(random_size(rng), 2), things)
    questions = []
    present = rng.random() < 0.5
    for thing in rng.sample(things, 2):
        asked = thing if present else _absent_thing(rng, things, hard=rng.random() < 0.5)
        text = rng.choice(EXIST_PROMPTS).format(article(asked.color), asked.name)
        questions.append(Question(text, "yes" if present else "no"))
        present = not present
    return _scene_draft(scene, questions, scene.signature)


def _overlaps(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """Tell whether two boxes share area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _lattice_boxes(rng: Random, number: int, columns: int, rows: int) -> list[tuple[int, int, int, int]]:
    """Draw disjoint boxes in lattice units, 4 to 7 units a side."""
    boxes: list[tuple[int, int, int, int]] = []
    attempts = 0
    while len(boxes) < number:
        attempts += 1
        if attempts % 50 == 0:  # the first boxes may leave no room for the last
            boxes = []
        width = rng.randint(4, 7)
        height = max(4, min(7, width + rng.randint(-1, 1)))
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
    unit = rng.randint(8, 10)
    wide = rng.choice(((2, 1), (1, 2))) if rng.random() < 0.08 else (1, 1)
    columns, rows = LATTICE * wide[0], LATTICE * wide[1]
    width, height = columns * unit, rows * unit
    things = random_things(rng, rng.randint(2, 3))
    units = _lattice_boxes(rng, len(things), columns, rows)
    pairs = sorted(zip(units, things, strict=True), key=lambda pair: (pair[0][1], pair[0][0]))
    placed = tuple(
        Placed(thing, 0, 0, (x0 * unit, y0 * unit, x1 * unit, y1 * unit)) for (x0, y0, x1, y1), thing in pairs
    )
    scene = Scene(Grid(width, height, 1, 1), placed, rng.getrandbits(32))
    answers = [format_box(p.thing, p.box, width, height) for p in placed]
    order = rng.sample(range(len(placed)), len(placed))
    return Draft(
        questions=tuple(Question(rng.choice(BOX_PROMPTS).format(placed[k].thing.name), answers[k]) for k in order),
        combinations=tuple(f"{wide[0]}:{wide[1]} {answers[k]}" for k in order),
        dense=(Question(ALL_BOXES_PROMPT, "\n".join(answers)),),
        sizes=((width, height),),
        scenes=("; ".join(_describe_box(answer) for answer in answers),),
        paint=lambda: (paint_scene(scene),),
    )


def _describe_box(answer: str) -> str:
    """Turn a box answer into the plain words of a scene description: `red circle 71 143 357 429`."""
    for mark in ("<ref>", "</box>", "[[", "]]", ","):
        answer = answer.replace(mark, "")
    return answer.replace("</ref><box>", " ")
