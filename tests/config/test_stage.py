import pytest

from internvl_lab.config import LoraConfig, OptimizerConfig, SchedulerConfig, StageConfig
from internvl_lab.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"trainable": ("audio",)}, "audio"),
        ({"trainable": ()}, "trainable"),
        ({"gradient_checkpointing": ("head",)}, "head"),
        ({"max_steps": 0}, "max_steps"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
        ({"checkpoint_every": 0}, r"stage\.checkpoint_every=0"),
        ({"packs_per_step": 0}, r"stage\.packs_per_step=0"),
        ({"learning_rate": -1e-3}, r"stage\.learning_rate=-0\.001"),
        ({"learning_rate": float("nan")}, r"stage\.learning_rate=nan"),
        ({"warmup_steps": -1}, r"stage\.warmup_steps=-1"),
        ({"warmup_ratio": 1.5}, r"stage\.warmup_ratio=1\.5"),
        ({"weight_decay": -0.1}, r"stage\.weight_decay"),
    ],
)
def test_impossible_stages_name_the_key(values, key):
    with pytest.raises(ConfigError, match=key):
        StageConfig(**values)


def test_warmup_ratio_wins_over_steps():
    assert StageConfig(max_steps=5500, warmup_steps=7, warmup_ratio=0.03).num_warmup_steps == 165
    assert StageConfig(max_steps=5500, warmup_steps=7).num_warmup_steps == 7


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"beta1": 1.0}, r"optimizer\.beta1=1\.0"),
        ({"beta2": -0.1}, r"optimizer\.beta2=-0\.1"),
        ({"eps": 0.0}, r"optimizer\.eps=0\.0"),
        ({"max_grad_norm": -1.0}, r"optimizer\.max_grad_norm=-1\.0"),
        ({"max_bad_steps": -1}, r"optimizer\.max_bad_steps=-1"),
    ],
)
def test_impossible_optimizers_name_the_key(values, key):
    with pytest.raises(ConfigError, match=key):
        OptimizerConfig(**values)


def test_zero_means_off_where_it_says_so():
    assert OptimizerConfig(max_grad_norm=0.0, beta1=0.0).max_grad_norm == 0
    with pytest.raises(ConfigError, match=r"scheduler\.min_ratio=1\.5"):
        SchedulerConfig(min_ratio=1.5)


def test_unknown_schedule_is_refused():
    with pytest.raises(ConfigError, match=r"scheduler\.name"):
        SchedulerConfig(name="step")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"parts": ("projector",)}, r"stage\.lora\.parts: 'projector'"),
        ({"rank": 0}, r"stage\.lora\.rank=0"),
        ({"alpha": 0.0}, r"stage\.lora\.alpha=0"),
        ({"dropout": 1.0}, r"stage\.lora\.dropout=1\.0"),
    ],
)
def test_impossible_adapters_name_the_key(values, key):
    with pytest.raises(ConfigError, match=key):
        LoraConfig(**values)


def test_adapters_count_twice_unless_told_otherwise():
    assert LoraConfig(rank=128).scaling == 2.0
    assert LoraConfig(rank=8, alpha=4).scaling == 0.5


def test_a_part_trains_in_full_or_by_adapters():
    lora = LoraConfig(parts=("language",))
    with pytest.raises(ConfigError, match=r"language is in stage\.trainable and in stage\.lora\.parts"):
        StageConfig(trainable=("language",), lora=lora)
    assert StageConfig(trainable=(), lora=lora).learns == "LoRA of language"
    assert StageConfig(trainable=("projector",), lora=lora).learns == "projector, LoRA of language"
