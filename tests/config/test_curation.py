import pytest

from internvl_lab.config.curation import CurationConfig, RuleConfig, RulesConfig
from internvl_lab.errors import ConfigError


def test_a_rule_needs_a_threshold():
    with pytest.raises(ConfigError, match=r"curation\.rules\.boxes\.threshold=nan"):
        RulesConfig(boxes=RuleConfig())


def test_sources_are_exempt_by_pattern():
    rule = RuleConfig(1, exempt=("vqa_*", "docvqa"))
    assert [rule.exempts(name) for name in ("vqa_v2", "docvqa", "docvqa2", "my_vqa_")] == [True, True, False, False]


def test_the_first_pattern_names_the_scripts():
    config = CurationConfig(languages={"llava_zh": ("han",), "llava_*": ("latin",)})
    assert config.scripts_of("llava_zh") == ("han",)
    assert config.scripts_of("llava_en") == ("latin",)
    assert config.scripts_of("other") == ()


def test_unknown_scripts_are_refused():
    with pytest.raises(ConfigError, match=r"curation\.languages\.a: script 'english'"):
        CurationConfig(languages={"a": ("english",)})
