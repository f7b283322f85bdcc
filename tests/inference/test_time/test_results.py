from __future__ import annotations

from collections.abc import Callable

import pytest

from internvl_lab.config import TestTimeConfig
from internvl_lab.inference.test_time import Record, Sample, Scores, summarise
from internvl_lab.inference.test_time.results import to_json

MakeConfig = Callable[..., TestTimeConfig]


def sample(answer: str, right: bool, flops: float = 2.0, looping: bool = False) -> Sample:
    return Sample(answer, answer, "boxed", right, 4, -1.0, True, looping, flops)


def record(arm: str, key: str, *samples: Sample, checkpoint: str = "a", task: str = "t", error: str = "") -> Record:
    return Record(checkpoint, arm, task, key, "q", "r", samples, 10, 1, 100.0, error)


RECORDS = [
    record("direct", "1", sample("x", True)),
    record("direct", "2", sample("y", False)),
    record("cot", "1", sample("x", True)),
    record("cot", "2", sample("x", True)),
    record("samples", "1", sample("x", True), sample("x", True), sample("y", False)),
    record("samples", "2", sample("y", False), sample("y", False), sample("x", True, looping=True)),
]
SCORES = {of.place: Scores((0.1, 0.2, 0.9), 6.0) for of in RECORDS if of.arm == "samples"}


def test_rows_by_hand(config_of: MakeConfig) -> None:
    (result,) = summarise(config_of(), {of.place: of for of in RECORDS}, SCORES)
    assert (result.task, result.num_questions, result.num_skipped) == ("t", 2, 0)
    scores = {row.name: row.score.mean for row in result.rows}
    assert scores == pytest.approx(
        {"direct": 0.5, "cot": 1.0, "sample": 0.5, "majority": 0.5, "weighted": 0.5, "best_of_n": 0.5, "pass": 1.0}
    )
    cot, majority, best = (result.row(name) for name in ("cot", "majority", "best_of_n"))
    assert cot and majority and best
    assert cot.delta.mean == 0.5 and cot.tokens == 4 and cot.flops == 102
    assert (majority.num_samples, majority.tokens, majority.flops) == (3, 12, 106)
    assert best.flops == 112, "the critic's reading is paid by who asks it"
    assert majority.looping == pytest.approx(1 / 6) and majority.boxed == 1


def test_tasks_stand_behind_the_whole(config_of: MakeConfig) -> None:
    other = [Record(**{**vars(of), "task": "u"}) for of in RECORDS]
    records = {of.place: of for of in [*RECORDS, *other]}
    scores = SCORES | {of.place: Scores((0.1, 0.2, 0.9)) for of in other if of.arm == "samples"}
    results = summarise(config_of(), records, scores)
    assert [(result.task, result.num_questions) for result in results] == [("all", 4), ("t", 2), ("u", 2)]


def test_an_ensemble_pools_its_answers(config_of: MakeConfig) -> None:
    second = [record("direct", key, sample("x", True), checkpoint="b") for key in "12"]
    second += [record("cot", key, sample("x", True), checkpoint="b") for key in "12"]
    second += [record("samples", key, *[sample("x", True)] * 3, checkpoint="b") for key in "12"]
    records = {of.place: of for of in [*RECORDS, *second]}
    scores = {place: Scores((0.5,) * 3) for place, of in records.items() if of.arm == "samples"}
    (result,) = summarise(config_of(checkpoint=("a", "b")), records, scores)
    majority, direct = result.row("majority"), result.row("direct")
    assert majority and direct
    assert (majority.num_samples, majority.score.mean, majority.flops) == (6, 1.0, 212)
    assert direct.score.mean == 0.75


def test_a_skipped_question_is_left_out_everywhere(config_of: MakeConfig) -> None:
    bad = [record(arm, "3", error="cut") for arm in ("direct", "cot", "samples")]
    (result,) = summarise(config_of(), {of.place: of for of in [*RECORDS, *bad]}, SCORES)
    assert (result.num_questions, result.num_skipped) == (2, 1)
    (empty,) = summarise(config_of(), {of.place: of for of in bad}, {})
    assert empty.rows == () and empty.num_skipped == 1


def test_json_holds_every_number(config_of: MakeConfig) -> None:
    found = to_json(summarise(config_of(), {of.place: of for of in RECORDS}, SCORES))["t"]
    assert found["n"] == 2 and found["rows"]["cot"]["delta"]["mean"] == 0.5
    assert found["curves"]["pass"]["N"] == [1, 2, 3] and found["curves"]["pass"]["score"][-1] == 1.0
