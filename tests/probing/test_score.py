"""Scores survive the way through the JSON files of a run folder."""

import json
from dataclasses import asdict, fields, replace

from internvl_lab.probing.score import Score

SCORE = Score("mini", 3, "attention", 2, "glyph", "world", 100, 0.25, 0.5, 0.1, "41d9fb592f")


def test_a_score_comes_back_from_json_as_it_was():
    for score in (SCORE, replace(SCORE, ema_accuracy=None, learning_rate=None)):
        assert Score(**json.loads(json.dumps(asdict(score)))) == score


def test_scores_written_before_runs_were_named_are_read():
    old = {key: value for key, value in asdict(SCORE).items() if key != "run"}
    assert Score(**old) == replace(SCORE, run="")


def test_the_columns_of_the_table_keep_their_order():
    names = "encoder seed head depth target test n accuracy ema_accuracy learning_rate run"
    assert [field.name for field in fields(Score)] == names.split()
