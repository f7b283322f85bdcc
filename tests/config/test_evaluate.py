"""Words of the command line become a typed configuration."""

from __future__ import annotations

import pytest

from internvl_lab.config.asking import AskingConfig
from internvl_lab.config.evaluate import EvaluateConfig, parse_words
from internvl_lab.errors import ConfigError

NEEDED = ["checkpoint=asset:quickstart", "tasks=[a,b]"]


def test_words() -> None:
    cfg = parse_words([*NEEDED, "out=x y", "blind=true", "samples_per_task=3", "max_tiles=null", "data=1"])
    assert cfg == EvaluateConfig("asset:quickstart", ("a", "b"), "x y", "1", 3, True)
    assert parse_words(["checkpoint=c", "tasks=mmstar"]).tasks == ("mmstar",)


def test_a_judge_is_off_until_it_has_a_url() -> None:
    assert parse_words(NEEDED).judge == AskingConfig()
    words = ["judge.url=http://127.0.0.1:8000/v1", "judge.model=m", "judge.request={seed: 1}"]
    judge = parse_words([*NEEDED, *words]).judge
    assert (judge.kind, judge.url, judge.request) == ("openai", "http://127.0.0.1:8000/v1", {"seed": 1})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*NEEDED, "taks=[a]"], "unknown key 'taks'"),
        ([*NEEDED, "batch_size=0"], "batch_size=0"),
        ([*NEEDED, "batch_size=many"], "batch_size='many'"),
        ([*NEEDED, "dtype=float16"], "dtype=float16"),
        ([*NEEDED, "wandb=yes please"], "wandb=yes please"),
        ([*NEEDED, "out=a", "out=b"], "out is given twice"),
        ([*NEEDED, "blind"], "'blind' is no key=value"),
        (["tasks=[a]"], "checkpoint= is missing"),
        ([*NEEDED, "judge.url=http://x"], r"judge\.model is missing"),
        ([*NEEDED, "judge.url=x", "judge.model=m"], r"judge\.url='x' must be an http"),
        ([*NEEDED, "judge.max_answer_tokens=9"], r"override it by judge\.request=\{max_tokens: N\}"),
        ([*NEEDED, "judge.hue=1"], r"unknown key 'judge\.hue'"),
        ([*NEEDED, "judge.url=http://x", "judge.url=http://y"], r"judge\.url is given twice"),
        ([*NEEDED, "seed.x=1", "seed=2"], "seed is given twice"),
        (["checkpoint=c"], "tasks= is missing"),
        (["checkpoint=c", "tasks=[]"], r"tasks=\[\]"),
        (["checkpoint=c", "tasks=[a"], r"cannot read tasks=\[a"),
    ],
)
def test_mistakes_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_words(words)
