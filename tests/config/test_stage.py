import pytest

from internvl_lab.config import SchedulerConfig, StageConfig
from internvl_lab.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"trainable": ("audio",)}, "audio"),
        ({"trainable": ()}, "trainable"),
        ({"gradient_checkpointing": ("head",)}, "head"),
        ({"max_steps": 0}, "max_steps"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
    ],
)
def test_impossible_stages_name_the_key(values, key):
    with pytest.raises(ConfigError, match=key):
        StageConfig(**values)


def test_warmup_ratio_wins_over_steps():
    assert StageConfig(max_steps=5500, warmup_steps=7, warmup_ratio=0.03).num_warmup_steps == 165
    assert StageConfig(max_steps=5500, warmup_steps=7).num_warmup_steps == 7


def test_unknown_schedule_is_refused():
    with pytest.raises(ConfigError, match=r"scheduler\.name"):
        SchedulerConfig(name="step")
