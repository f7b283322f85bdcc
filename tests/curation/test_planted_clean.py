from random import Random

import pytest

from internvl_lab.config.curation import RulesConfig
from internvl_lab.curation.decisions import judge_scores
from internvl_lab.curation.planted_clean import CHINESE, ENGLISH
from internvl_lab.curation.rules import apply_text_rules


@pytest.mark.parametrize("maker", [*ENGLISH, *CHINESE], ids=lambda maker: maker.__name__)
def test_what_looks_repetitive_and_is_legitimate_passes(maker):
    rng = Random(maker.__name__)
    for _ in range(20):
        question, answer = maker(rng)
        scores = apply_text_rules([("human", question), ("gpt", answer)])
        fired = [verdict for verdict in judge_scores(scores, "", RulesConfig()) if verdict.rejected]
        assert not fired, (answer, fired)
