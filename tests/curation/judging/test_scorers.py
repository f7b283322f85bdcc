import pytest

from internvl_lab.config.curation_judge import JudgeConfig, QualityConfig, RepetitionConfig
from internvl_lab.curation.judging.scorers import build_judge, open_scorers
from internvl_lab.errors import JudgeError
from internvl_lab.text.judging.http_judge import ChatJudge


def test_without_a_judge_nothing_is_scored_and_nothing_written(tmp_path):
    with open_scorers(JudgeConfig(), tmp_path) as scorers:
        assert scorers == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("quality", "repetition"), [(True, True), (True, False), (False, True), (False, False)])
def test_what_is_switched_on_is_there(make_config, tmp_path, quality, repetition):
    config = make_config(quality=QualityConfig(quality), repetition=RepetitionConfig(repetition))
    with open_scorers(config, tmp_path) as scorers:
        wanted = ["quality"] * quality + ["judged_repetition"] * repetition
        assert [scorer.name for scorer in scorers] == wanted


def test_the_cache_may_lie_elsewhere(make_config, tmp_path):
    config = make_config(cache=str(tmp_path / "shared" / "answers.sqlite"))
    with open_scorers(config, tmp_path / "out"):
        pass
    assert (tmp_path / "shared" / "answers.sqlite").is_file()
    assert not (tmp_path / "out" / "judge.sqlite").exists()


def test_the_end_says_what_it_took(make_config, record, tmp_path, caplog):
    with caplog.at_level("INFO"), open_scorers(make_config(), tmp_path) as scorers:
        scorers[1].score([record(1, "worth 4")])
    assert "judge: 1 questions asked, 0 answered from the cache; in all runs 1 calls" in caplog.text


def test_kind_picks_the_judge(make_config, tmp_path):
    assert isinstance(build_judge(make_config()), ChatJudge)
    with pytest.raises(JudgeError, match="no folder of a transformers model"):
        build_judge(JudgeConfig(kind="local", model=str(tmp_path)))
