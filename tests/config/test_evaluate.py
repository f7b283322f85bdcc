"""Words of the command line become a typed configuration."""

from __future__ import annotations

import pytest

from internvl_lab.config.evaluate import EvaluateConfig, parse_words
from internvl_lab.errors import ConfigError

NEEDED = ["checkpoint=asset:quickstart", "tasks=[a,b]"]


def test_words() -> None:
    cfg = parse_words([*NEEDED, "out=x y", "blind=true", "samples_per_task=3", "max_tiles=null", "data=1"])
    assert cfg == EvaluateConfig("asset:quickstart", ("a", "b"), "x y", "1", 3, True)
    assert parse_words(["checkpoint=c", "tasks=mmstar"]).tasks == ("mmstar",)


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
        (["checkpoint=c"], "tasks= is missing"),
        (["checkpoint=c", "tasks=[]"], r"tasks=\[\]"),
        (["checkpoint=c", "tasks=[a"], r"cannot read tasks=\[a"),
    ],
)
def test_mistakes_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_words(words)
