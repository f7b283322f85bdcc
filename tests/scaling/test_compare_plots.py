"""Pictures of a comparison."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from internvl_lab.scaling.compare_plots import cost_of, draw_losses, draw_pareto, draw_scores, pareto_front, task_names
from internvl_lab.scaling.runs import Run

BLUE, ORANGE, GREEN = (31, 119, 180), (255, 127, 14), (44, 160, 44)
HISTORY = {"train/loss": [3.0, 2.0, 1.0], "tokens": [1, 2, 3]}
RUNS = [
    Run("small", {"score": 0.5, "standard_error": 0.01, "flops": 1e9, "params": 1e6}, {"ocr": 0.5}, HISTORY),
    Run("large", {"score": 0.75, "flops": 3e9, "params": 3e6}, {"ocr": 0.9, "chart": 0.6}, HISTORY),
    Run("silent"),
]


def pixels(data: bytes | None, colour: tuple[int, int, int]) -> int:
    """Count the pixels of a colour."""
    assert data is not None
    return int((np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) == colour).all(axis=-1).sum())


def test_bars_for_every_run_with_a_score() -> None:
    picture = draw_scores(RUNS, "title")
    assert pixels(picture, BLUE) > 3000 and pixels(picture, ORANGE) > 3000 and pixels(picture, GREEN) == 0
    assert draw_scores(RUNS[2:], "title") is None
    assert task_names(RUNS) == ["ocr", "chart"]


def test_a_panel_for_each_cost_that_was_logged() -> None:
    one = draw_losses(RUNS)
    more = {**HISTORY, "flops": [1, 2, 3], "perf/step_s": [1.0, 1.0, 1.0]}
    three = draw_losses([Run("a", history=more)])
    assert one is not None and three is not None
    widths = [Image.open(io.BytesIO(picture)).width for picture in (one, three)]
    assert widths[1] > 2.9 * widths[0]
    assert pixels(one, ORANGE) > 100
    assert draw_losses(RUNS[2:]) is None and draw_losses([Run("a", history={"train/loss": [1.0]})]) is None


def test_the_front_is_what_no_other_beats() -> None:
    costs, scores = np.array([1.0, 2.0, 2.0, 3.0, 4.0]), np.array([0.5, 0.7, 0.6, 0.7, 0.9])
    assert pareto_front(costs, scores) == [True, True, False, False, True]
    assert pareto_front(np.array([1.0, 1.0]), np.array([0.5, 0.5])) == [True, True], "equals do not beat each other"


def test_scores_against_the_first_cost_that_two_runs_share() -> None:
    assert pixels(draw_pareto(RUNS), BLUE) > 20
    assert draw_pareto(RUNS[:1]) is None
    hours = [Run(str(k), {"score": 0.5, "train_s": 60.0 * k}, devices=2) for k in (1, 2)]
    assert draw_pareto(hours) is not None
    assert cost_of(hours[1], "hours") == 120 * 2 / 3600 and cost_of(hours[0], "flops") is None
