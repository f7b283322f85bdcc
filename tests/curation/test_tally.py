from __future__ import annotations

from pathlib import Path

import pytest

from internvl_lab.config.curation import RulesConfig
from internvl_lab.curation.decisions import Review, decide, judge_scores
from internvl_lab.curation.inputs import Source
from internvl_lab.curation.items import Item
from internvl_lab.curation.rules import UNITS, Finding
from internvl_lab.curation.tally import COUNT_BINS, NUM_EXAMPLES, SHARE_BINS, Tally, bin_of, lower_edge
from internvl_lab.curation.verdicts import Verdict

SOURCE = Source("a", Path("a.jsonl"), Path("."), {})


def add(tally, number, scores, reviews=None, more=()):
    item = Item(f"a:{number}", SOURCE, b"{}")
    tally.add(item, scores, decide(item.key, (*judge_scores(scores, "a", RulesConfig()), *more), reviews or {}))


def test_counts_and_the_worst_examples():
    tally = Tally()
    for number in range(10):
        add(tally, number, {"zero_run": Finding(50 + number % 7)})
    add(tally, 10, {"zero_run": Finding(90), "compression": Finding(20)})
    add(tally, 11, {"zero_run": Finding(9)})
    rule = tally.rules["zero_run"]
    assert (tally.num_records, tally.num_kept, rule.fired, rule.alone) == (12, 1, 11, 10)
    assert len(rule.worst) == NUM_EXAMPLES
    keys = [example.item.key for example in sorted(rule.worst, reverse=True)]
    assert keys == ["a:10", "a:6", "a:5", "a:4", "a:3"]
    assert rule.histogram.total() == 12


def test_of_equal_scores_the_earlier_record_is_shown():
    tally = Tally()
    for number in range(20):
        add(tally, number, {"boxes": Finding(1)})
    keys = [example.item.key for example in sorted(tally.rules["boxes"].worst, reverse=True)]
    assert keys == ["a:0", "a:1", "a:2", "a:3", "a:4"]


def test_summary_lists_every_rule_and_the_scorers():
    tally = Tally()
    add(tally, 0, {}, more=(Verdict("quality", 3.0, 7.0, True),))
    add(tally, 1, {"zero_run": Finding(99)}, {"a:1": Review(True, "ann")})
    summary = tally.summary(RulesConfig())
    assert list(summary["rules"]) == [*UNITS, "quality"]
    assert summary["rules"]["quality"] == {"unit": "score", "threshold": None, "enabled": True, "fired": 1, "alone": 1}
    assert summary["reviewed"] == {"keep": 1}
    assert summary["sources"] == {"a": {"records": 2, "kept": 1, "rules": {"quality": 1}}}


@pytest.mark.parametrize("rule", ["longest_repeat", "zero_run"])
def test_a_score_lies_in_its_bin(rule):
    bins = SHARE_BINS if rule == "longest_repeat" else COUNT_BINS
    for score in (0.0, 0.1, 0.42, 0.999):
        number = bin_of(rule, score)
        assert lower_edge(rule, number) <= score < lower_edge(rule, number + 1)
    assert bin_of(rule, 10**9) == bins - 1
    assert bin_of(rule, float("nan")) == 0


def test_every_rule_has_a_unit_and_a_threshold():
    assert list(UNITS) == [name for name, _ in RulesConfig()]
