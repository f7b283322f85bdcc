"""Tasks over several pictures: multi_image (find and compare) and video (motion over frames)."""

from __future__ import annotations

from dataclasses import replace
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
    random_things,
)
from internvl_lab.data.miniworld.vocabulary import COLORS, DIRECTIONS

FIND_PROMPTS = ("In which image is there {} {}?", "Which image shows {} {}?")
CHANGE_PROMPTS = ("Which color did the {} change to?", "What is the new color of the {}?")
FORMER_PROMPTS = ("Which color did the {} change from?", "What was the old color of the {}?")
NEW_PROMPTS = ("What is new in Image-2?", "What does only Image-2 show?")
IMAGES_PROMPT = "Describe every image."
MOTION_PROMPTS = ("Which direction does the {} move?", "Where does the {} go?")
MOVER_PROMPTS = ("What moves?", "Which object moves?")
FRAMES_PROMPT = "Describe the motion."

NUM_FRAMES = 4
FRAME_SIZE = 112


def _small_grid(rng: Random) -> Grid:
    """Draw the grid of one picture of a set: about one tile, two cells a side."""
    return make_grid((rng.randint(100, 124), rng.randint(100, 124)), 2)


def _find(rng: Random) -> tuple[list[Scene], list[Question]]:
    """Show two or three pictures; ask which one holds an object that only one has."""
    number = rng.choice((2, 3, 3, 3))
    things = random_things(rng, 2 * number)
    scenes = [arrange(rng, _small_grid(rng), things[2 * k : 2 * k + rng.randint(1, 2)]) for k in range(number)]
    questions = []
    for index in rng.sample(range(number), number):
        thing = rng.choice(scenes[index].things).thing
        text = rng.choice(FIND_PROMPTS).format(article(thing.color), thing.name)
        questions.append(Question(text, f"Image-{index + 1}"))
    return scenes, questions


def _change(rng: Random) -> tuple[list[Scene], list[Question]]:
    """Show a scene and the same scene with one object in another colour; ask for the new or the old colour."""
    things = random_things(rng, 2)
    while things[0].shape == things[1].shape:
        things = random_things(rng, 2)
    before = arrange(rng, _small_grid(rng), things)
    index = rng.randrange(2)
    old = before.things[index]
    color = rng.choice([c for c in COLORS if c != old.thing.color])
    changed = list(before.things)
    changed[index] = replace(old, thing=Thing(color, old.thing.shape))
    after = Scene(before.grid, tuple(changed), rng.getrandbits(32))
    questions = [
        Question(rng.choice(CHANGE_PROMPTS).format(old.thing.shape), color),
        Question(rng.choice(FORMER_PROMPTS).format(old.thing.shape), old.thing.color),
    ]
    rng.shuffle(questions)
    return [before, after], questions


def _new(rng: Random) -> tuple[list[Scene], list[Question]]:
    """Show a scene and the same scene with one more object; ask for that object."""
    after = arrange(rng, _small_grid(rng), random_things(rng, rng.randint(2, 3)))
    index = rng.randrange(len(after.things))
    kept = after.things[:index] + after.things[index + 1 :]
    before = Scene(after.grid, kept, rng.getrandbits(32))
    thing = after.things[index].thing
    return [before, after], [Question(rng.choice(NEW_PROMPTS), f"{article(thing.color)} {thing.name}")]


def multi_image(rng: Random, dense: bool) -> Draft:
    """Draw two or three pictures and a question that one of them alone cannot answer."""
    del dense
    scenes, questions = rng.choice((_find, _find, _change, _new))(rng)
    listing = "\n".join(f"Image-{k}: {scene.caption}" for k, scene in enumerate(scenes, 1))
    return Draft(
        questions=tuple(questions),
        combinations=(" | ".join(scene.signature for scene in scenes),),
        dense=(Question(IMAGES_PROMPT, listing),),
        sizes=tuple((scene.grid.width, scene.grid.height) for scene in scenes),
        scenes=tuple(scene.description for scene in scenes),
        paint=lambda: tuple(paint_scene(scene) for scene in scenes),
    )


def _frame(grid: Grid, pairs: list[tuple[Thing, int, int, int]], seed: int) -> Scene:
    """Build one frame of (thing, x, y, edge) in pixels; cells are those of the objects' centres."""
    placed = []
    for thing, x, y, edge in pairs:
        row = (y + edge // 2) * grid.rows // grid.height
        column = (x + edge // 2) * grid.columns // grid.width
        placed.append(Placed(thing, row, column, (x, y, x + edge, y + edge)))
    return Scene(grid, tuple(placed), seed)


def video(rng: Random, dense: bool) -> Draft:
    """Draw four frames in which one object moves straight through its half of the picture; another one stays."""
    del dense
    things = random_things(rng, 2)
    while things[0].shape == things[1].shape:
        things = random_things(rng, 2)
    direction = rng.choice(list(DIRECTIONS))
    edge, step = rng.randint(26, 32), rng.randint(20, 25)
    travel = step * (NUM_FRAMES - 1)
    along = rng.randint(0, FRAME_SIZE - edge - travel)
    low, high = rng.randint(0, 54 - edge), rng.randint(58, FRAME_SIZE - edge)
    across, other = (low, high) if rng.random() < 0.5 else (high, low)
    still, still_edge = rng.randint(0, FRAME_SIZE - 32), rng.randint(26, edge)
    grid = Grid(FRAME_SIZE, FRAME_SIZE, 4, 4)
    dx, dy = DIRECTIONS[direction]
    seed = rng.getrandbits(32)
    mover_first = rng.random() < 0.5  # else the scene text would give the mover away by its place in the list
    frames = []
    for k in range(NUM_FRAMES):
        moved = along + (k * step if dx + dy > 0 else travel - k * step)
        mover, stayer = ((moved, across), (still, other)) if dx else ((across, moved), (other, still))
        pairs = [(things[0], *mover, edge), (things[1], *stayer, still_edge)]
        frames.append(_frame(grid, pairs if mover_first else pairs[::-1], seed))
    a, b = things
    asks = [
        Question(rng.choice(MOTION_PROMPTS).format(a.shape), direction),
        Question(rng.choice(MOVER_PROMPTS), f"the {a.name}"),
    ]
    if rng.random() < 0.3:
        asks.reverse()
    motion = f"the {a.name} moves {direction}, the {b.name} stays"
    return Draft(
        questions=tuple(asks),
        combinations=(f"{direction} {edge} {frames[0].description}",),
        dense=(Question(FRAMES_PROMPT, motion),),
        sizes=tuple((FRAME_SIZE, FRAME_SIZE) for _ in frames),
        scenes=tuple(frame.description for frame in frames),
        paint=lambda: tuple(paint_scene(frame) for frame in frames),
        is_video=True,
    )
