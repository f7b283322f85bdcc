import dataclasses
from pathlib import Path

import pytest
import yaml

from internvl_lab.config.curation_judge import JudgeConfig, QualityConfig, RepetitionConfig
from internvl_lab.config.typed import from_mapping
from internvl_lab.errors import ConfigError

FILES = sorted((Path(__file__).resolve().parents[2] / "conf" / "curation" / "judge").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_files_are_typed_and_their_values_are_the_defaults(path):
    values = yaml.safe_load(path.read_text())
    config = from_mapping(JudgeConfig, values, "curation.judge")
    assert config.kind == path.stem
    assert config == JudgeConfig(config.kind, config.model)


def test_the_files_hold_every_key_that_their_kind_has():
    known = {field.name for field in dataclasses.fields(JudgeConfig)}
    assert [path.stem for path in FILES] == ["local", "none", "openai"]
    keys = {path.stem: set(yaml.safe_load(path.read_text())) for path in FILES}
    assert keys["local"] | keys["openai"] == known
    assert keys["openai"] == known - {"batch_size", "device"}


def test_defaults_are_the_report_s_examples():
    config = JudgeConfig()
    assert (config.quality, config.repetition) == (QualityConfig(True, 7.0), RepetitionConfig(True, 3.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "oracle"}, r"kind='oracle' must be one of none, openai, local"),
        ({"model": ""}, "model is missing"),
        ({"url": "ftp://x"}, "must be an http or https URL"),
        ({"url": "localhost:8000"}, "must be an http or https URL"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout_s": 0.0}, "timeout_s=0.0 must be above 0"),
        ({"max_calls": -1}, "max_calls=-1"),
        ({"max_cost": 5.0}, "max_cost bounds nothing"),
        ({"max_text_chars": 10}, "max_text_chars=10"),
    ],
)
def test_impossible_judges_are_refused_by_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        JudgeConfig(**{"kind": "openai", "model": "m"} | changes)


def test_impossible_scores_are_refused():
    with pytest.raises(ConfigError, match="threshold=11"):
        RepetitionConfig(threshold=11)
    with pytest.raises(ConfigError, match=r"router='coin' must be one of rules_first, judge, rules"):
        QualityConfig(router="coin")
    with pytest.raises(ConfigError, match=r"unknown key 'curation\.judge\.quality\.limit'"):
        from_mapping(JudgeConfig, {"quality": {"limit": 3}}, "curation.judge")
