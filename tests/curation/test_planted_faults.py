from random import Random

import pytest

from internvl_lab.config.curation import RulesConfig
from internvl_lab.curation.decisions import judge_scores
from internvl_lab.curation.planted_faults import ANSWERS
from internvl_lab.curation.rules import apply_text_rules


@pytest.mark.parametrize("maker", ANSWERS, ids=lambda maker: maker.__name__)
def test_nearly_all_of_every_fault_are_caught(maker):
    rng = Random(maker.__name__)
    caught = 0
    for _ in range(20):
        question, answer = maker(rng)
        scores = apply_text_rules(
            [("human", question), ("gpt", answer)], ("latin",) if "wrong" in maker.__name__ else ()
        )
        caught += any(verdict.rejected for verdict in judge_scores(scores, "", RulesConfig()))
    assert caught >= (15 if maker.__name__ == "circular" else 20)
