import json

import pytest

from internvl_lab.config.curation_judge import QualityConfig, RepetitionConfig
from internvl_lab.curation.judging import open_scorers
from internvl_lab.curation.judging.prompts import QUALITY_PROMPTS, REPETITION_PROMPT, ROUTER_PROMPT
from internvl_lab.errors import BudgetError

FAULTS = ("429 2", "500 1", "garbage 1", "cut 1", "shape 1", "hangup 1", "slow 1")
NO_QUALITY, NO_REPETITION = QualityConfig(enabled=False), RepetitionConfig(enabled=False)


def systems(server):
    return [request["messages"][0]["content"] for request in server.requests]


def score(config, folder, records):
    with open_scorers(config, folder) as scorers:
        return {scorer.name: scorer.score(records) for scorer in scorers}


def test_quality_is_scored_per_domain_and_compared_with_the_threshold(server, make_config, record, tmp_path):
    records = [
        record(1, "worth 7"),
        record(2, "worth 6"),
        record(3, r"worth 9: \frac{1}{2} and \sqrt{2}"),
        record(4, "worth 1", has_media=True),
        record(5, "worth 1", source="academic_qa"),
    ]
    quality = QualityConfig(exempt=("academic_*",))
    found = score(make_config(quality=quality, repetition=NO_REPETITION), tmp_path, records)["quality"]
    assert [[(v.rule, v.score, v.threshold, v.rejected) for v in verdicts] for verdicts in found] == [
        [("quality", 7.0, 7.0, False)],
        [("quality", 6.0, 7.0, True)],
        [("quality", 9.0, 7.0, False)],
        [],
        [],
    ]
    assert found[0][0].detail.startswith("general: A reason of ")
    assert found[2][0].detail.startswith("mathematics: ")
    asked = systems(server)
    assert asked.count(ROUTER_PROMPT) == 2
    assert asked.count(QUALITY_PROMPTS["general"]) == 2
    assert asked.count(QUALITY_PROMPTS["mathematics"]) == 1


@pytest.mark.parametrize(("router", "num_routed"), [("judge", 2), ("rules", 0), ("rules_first", 1)])
def test_the_router_is_a_setting(server, make_config, record, tmp_path, router, num_routed):
    records = [record(1, "worth 7"), record(2, r"worth 9: \frac{1}{2} and \sqrt{2}")]
    quality = QualityConfig(router=router)
    found = score(make_config(quality=quality, repetition=NO_REPETITION), tmp_path, records)["quality"]
    assert [verdicts[0].score for verdicts in found] == [7.0, 9.0]
    assert systems(server).count(ROUTER_PROMPT) == num_routed


def test_repetition_is_scored_for_media_too_and_the_academic_are_exempt(server, make_config, record, tmp_path):
    records = [record(1, "worth 3", has_media=True), record(2, "worth 2"), record(3, "worth 0", source="docvqa")]
    repetition = RepetitionConfig(exempt=("docvqa",))
    found = score(make_config(quality=NO_QUALITY, repetition=repetition), tmp_path, records)["judged_repetition"]
    assert [[(v.score, v.rejected) for v in verdicts] for verdicts in found] == [[(3.0, False)], [(2.0, True)], []]
    assert systems(server) == [REPETITION_PROMPT] * 2


def test_faults_lose_nothing_and_pay_nothing_twice(server, make_config, judge_server, record, tmp_path):
    records = [record(i, f"[{FAULTS[i % len(FAULTS)]}] worth {i % 11}") for i in range(42)]
    config = make_config(timeout_s=judge_server.PATIENCE_S, quality=NO_QUALITY)
    found = score(config, tmp_path, records)["judged_repetition"]
    assert [verdicts[0].score for verdicts in found] == [float(i % 11) for i in range(42)]
    assert set(server.paid.values()) == {1} and len(server.paid) == 42
    assert server.most_in_flight <= 16
    assert score(config, tmp_path, records)["judged_repetition"] == found
    assert set(server.paid.values()) == {1}
    assert (tmp_path / "unparsed.jsonl").read_text() == ""


def test_what_is_not_clear_is_kept_aside_and_paid_once(server, make_config, record, tmp_path):
    records = [record(1, "[vague 9] worth 2"), record(2, "worth 2"), record(3, "[400 1] worth 2")]
    config = make_config(quality=NO_QUALITY)
    for expected in ([1, 3], [1]):
        found = score(config, tmp_path, records)["judged_repetition"]
        lines = [json.loads(line) for line in (tmp_path / "unparsed.jsonl").read_text().splitlines()]
        assert [line["key"] for line in lines] == [f"web:{number}" for number in expected]
        assert [bool(verdicts) for verdicts in found] == [number not in expected for number in (1, 2, 3)]
    assert lines[0]["answer"] == "It is quite good, perhaps an 8."
    assert lines[0]["reason"] == "no final line `Score: N`"
    assert len(server.requests) == 4


def test_an_unclear_domain_gives_no_quality_score(make_config, record, tmp_path):
    records = [record(1, "[vague 1] worth 2")]
    found = score(make_config(quality=QualityConfig(router="judge"), repetition=NO_REPETITION), tmp_path, records)
    assert found == {"quality": [[]]}
    assert json.loads((tmp_path / "unparsed.jsonl").read_text())["reason"] == "no domain in one word"


def test_a_spent_budget_is_one_line_and_more_of_it_goes_on_where_it_stopped(server, make_config, record, tmp_path):
    records = [record(i, f"worth {i % 11}") for i in range(30)]

    def run(max_calls):
        return score(make_config(max_calls=max_calls, quality=NO_QUALITY), tmp_path, records)

    with pytest.raises(BudgetError, match=r"budget is used up \(12 calls"):
        run(12)
    assert sum(server.paid.values()) == 12
    assert len(run(30)["judged_repetition"]) == 30
    assert sum(server.paid.values()) == 30


def test_the_cost_never_passes_its_bound(server, make_config, record, tmp_path):
    records = [record(i, f"worth {i % 11}") for i in range(30)]
    changes = {"prompt_price": 1.0, "answer_price": 10.0, "max_answer_tokens": 64, "max_cost": 0.006}
    config = make_config(**changes, quality=NO_QUALITY)
    with pytest.raises(BudgetError):
        score(config, tmp_path, records)
    paid = sum(server.paid.values())
    real = paid * (100 * 1.0 + 20 * 10.0) / 1e6
    assert 0.003 < real <= 0.006
