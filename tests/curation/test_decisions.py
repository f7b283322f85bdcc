from __future__ import annotations

import pytest

from internvl_lab.config.curation import RuleConfig, RulesConfig
from internvl_lab.curation.decisions import Review, decide, judge_scores, read_reviews
from internvl_lab.curation.rules import Finding
from internvl_lab.errors import ConfigError

SCORES = {"zero_run": Finding(50, "50 zeros"), "compression": Finding(4)}


def test_a_score_above_the_threshold_rejects():
    verdicts = judge_scores(SCORES, "any", RulesConfig())
    assert [(v.rule, v.score, v.threshold, v.rejected, v.detail) for v in verdicts] == [
        ("zero_run", 50, 40, True, "50 zeros"),
        ("compression", 4, 10, False, ""),
    ]
    assert not decide("k", verdicts, {}).keep
    assert judge_scores({"zero_run": Finding(40)}, "any", RulesConfig())[0].rejected is False


@pytest.mark.parametrize("rule", [RuleConfig(40, enabled=False), RuleConfig(40, exempt=("trusted_*",))])
def test_rules_that_are_off_or_exempt_the_source_have_no_say(rule):
    verdicts = judge_scores(SCORES, "trusted_vqa", RulesConfig(zero_run=rule))
    assert [verdict.rule for verdict in verdicts] == ["compression"]
    assert decide("k", verdicts, {}).keep


def test_an_exemption_is_for_its_sources_only():
    rules = RulesConfig(zero_run=RuleConfig(40, exempt=("trusted_*",)))
    assert judge_scores(SCORES, "other", rules)[0].rejected


def test_people_have_the_last_word():
    verdicts = judge_scores(SCORES, "any", RulesConfig())
    kept = decide("k", verdicts, {"k": Review(True, "ann")})
    assert (kept.keep, kept.by, [v.rule for v in kept.fired]) == (True, "review:ann", ["zero_run"])
    rejected = decide("k", (), {"k": Review(False, "ann")})
    assert (rejected.keep, [v.rule for v in rejected.fired]) == (False, ["manual_review"])
    assert decide("other", (), {"k": Review(False, "ann")}).by == "rules"


def test_the_last_review_of_a_key_wins_and_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "reviews.jsonl"
    path.write_text(
        '{"key": "a:1", "decision": "keep", "by": "ann", "at": "now", "rules": []}\n'
        '{"key": "a:1", "decision": "reject", "by": "bob"}\n\n{"key": "a:2", "deci'
    )
    assert read_reviews(path) == {"a:1": Review(False, "bob")}


@pytest.mark.parametrize("line", ["{", "{}", '{"key": "a", "decision": "maybe"}', "[]"])
def test_a_wrong_review_is_named(tmp_path, line):
    path = tmp_path / "reviews.jsonl"
    path.write_text(f'{line}\n{{"key": "a", "decision": "keep"}}\n')
    with pytest.raises(ConfigError, match=r"reviews\.jsonl:1"):
        read_reviews(path)


def test_missing_reviews_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_reviews(tmp_path / "none.jsonl")
