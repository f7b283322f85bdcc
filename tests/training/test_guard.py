"""Which steps are refused, and what is said about them."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from internvl_lab.errors import NonFiniteError
from internvl_lab.training.guard import StepGuard
from internvl_lab.training.losses import StepResult, StepTotals

NAN = math.nan


def result(loss: float = 1.0, weight: float = 2.0, grad_norm: float = 3.0) -> StepResult:
    """Return a step's figures."""
    return StepResult(loss, weight, {}, {}, grad_norm)


def totals(**packs: float) -> StepTotals:
    """Return totals of packs, one sample each, with these losses."""
    return StepTotals(packs=[([key], torch.tensor(loss)) for key, loss in packs.items()])


def test_a_good_step_passes() -> None:
    guard = StepGuard(5)
    assert not guard.refuses(result(), totals(a=1.0), 1)
    assert guard.state_dict() == {"skipped_steps": 0, "bad_in_row": 0}


@pytest.mark.parametrize("bad", [result(loss=NAN), result(loss=math.inf), result(grad_norm=NAN)])
def test_a_non_finite_step_is_refused_and_counted(bad: StepResult) -> None:
    guard = StepGuard(5)
    assert guard.refuses(bad, totals(a=1.0), 1)
    assert guard.state_dict() == {"skipped_steps": 1, "bad_in_row": 1}


def test_the_offending_pack_is_named_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        StepGuard(5).refuses(result(loss=NAN), totals(good=1.0, culprit=NAN), 17)
    assert "step 17" in caplog.text
    assert "culprit" in caplog.text
    assert "good" not in caplog.text


def test_a_rank_without_the_offender_stays_silent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert StepGuard(5).refuses(result(loss=NAN), totals(mine=1.0), 3)
    assert caplog.text == ""


def test_a_bad_gradient_of_good_losses_names_all_packs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        StepGuard(5).refuses(result(grad_norm=math.inf), totals(a1=1.0, b2=2.0), 3)
    assert "a1" in caplog.text
    assert "b2" in caplog.text


def test_too_many_in_a_row_are_fatal() -> None:
    guard = StepGuard(3)
    assert guard.refuses(result(loss=NAN), totals(a=NAN), 1)
    assert guard.refuses(result(loss=NAN), totals(a=NAN), 2)
    with pytest.raises(NonFiniteError, match=r"3 steps in a row.*step 3.*max_bad_steps"):
        guard.refuses(result(loss=NAN), totals(a=NAN), 3)


def test_a_good_step_between_breaks_the_row() -> None:
    guard = StepGuard(2)
    for step in range(6):
        guard.refuses(result(loss=NAN if step % 2 else 1.0), totals(a=1.0), step)
    assert guard.skipped_steps == 3


def test_an_empty_step_is_skipped_but_not_fatal(caplog: pytest.LogCaptureFixture) -> None:
    guard = StepGuard(1)
    assert guard.refuses(result(loss=NAN, weight=0.0), totals(a=0.0), 4)
    assert guard.state_dict() == {"skipped_steps": 1, "bad_in_row": 0}
    assert "no supervised token" in caplog.text


def test_the_count_in_a_row_survives_a_restart() -> None:
    first, second = StepGuard(2), StepGuard(2)
    first.refuses(result(loss=NAN), totals(a=NAN), 1)
    second.load_state_dict(first.state_dict())
    with pytest.raises(NonFiniteError):
        second.refuses(result(loss=NAN), totals(a=NAN), 2)
