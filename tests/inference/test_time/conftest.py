"""A run small enough for every test: problems with and without pictures, and a model that answers noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from internvl_lab.config import TestTimeConfig
from internvl_lab.errors import SampleError
from internvl_lab.inference import Generator, Processor
from internvl_lab.inference.test_time import Problem, Respondent
from internvl_lab.models import InternVL
from internvl_lab.text import Turn

MakeConfig = Callable[..., TestTimeConfig]


def broken() -> list[Image.Image]:
    raise SampleError("p1", "corrupt_image", "cut")


def make_problem(number: int, task: str = "counting") -> Problem:
    """Ask about one picture; the answer is right if it is even in length."""
    images = [Image.new("RGB", (56, 56), (40 * number, 0, 0))]
    turns = (Turn("human", f"<image>\nHow many of {number}?"),)
    return Problem(task, f"p{number}", turns, "x", lambda answer, _: len(answer) % 2 == 0, lambda: images)


@pytest.fixture
def problems() -> list[Problem]:
    return [make_problem(number, ("counting", "ocr")[number % 2]) for number in range(6)]


@pytest.fixture
def config_of(tmp_path: Path) -> MakeConfig:
    def make(**changes: object) -> TestTimeConfig:
        settings: dict[str, object] = {
            "checkpoint": ("a",),
            "out": str(tmp_path / "out"),
            "prompt": "cot",
            "samples": 3,
            "select": "majority",
            "max_new_tokens": 6,
            "batch_size": 4,
            "bootstrap_draws": 50,
        }
        return TestTimeConfig(**(settings | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def respondent(model: InternVL, processor: Processor) -> Respondent:
    return Respondent(Generator(model, processor.template, 6, 4), processor)
