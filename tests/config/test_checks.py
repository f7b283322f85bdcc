import inspect
import math
from types import SimpleNamespace

import lightning
import pytest

from internvl_lab.config import checks
from internvl_lab.errors import ConfigError
from internvl_lab.tracking.wandb_log import WandbLog


def refused(check, *arguments, **options):
    with pytest.raises(ConfigError) as caught:
        check(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("value", [0.9, -1, math.inf, math.nan])
def test_at_least_refuses_what_is_below_or_not_finite(value):
    assert refused(checks.at_least, SimpleNamespace(x=value), "group", 1, "x").startswith(f"group.x={value} ")


@pytest.mark.parametrize("value", [0, -1e-9, math.inf, math.nan])
def test_above_zero_refuses_zero_and_what_is_not_finite(value):
    assert refused(checks.above_zero, SimpleNamespace(x=value), "group", "x").startswith(f"group.x={value} ")


def test_share_is_closed_or_half_open():
    one, more = SimpleNamespace(x=1.0), SimpleNamespace(x=1.1)
    checks.share(one, "group", "x")
    assert "must lie in [0, 1)" in refused(checks.share, one, "group", "x", below_one=True)
    assert "must lie in [0, 1]" in refused(checks.share, more, "group", "x")
    assert "group.x=nan" in refused(checks.share, SimpleNamespace(x=math.nan), "group", "x")


def test_limits_themselves_and_null_pass():
    owner = SimpleNamespace(low=1, null=None, zero=0.0)
    checks.at_least(owner, "group", 1, "low", "null")
    checks.above_zero(owner, "group", "low", "null")
    checks.share(owner, "group", "zero", "null", below_one=True)


@pytest.mark.parametrize(
    ("trainer", "key"),
    [
        ({"precision": "fp16"}, r"trainer\.precision='fp16' must be one of 32-true"),
        ({"precision": 32}, r"trainer\.precision=32"),
        ({"devices": 0}, r"trainer\.devices=0"),
        ({"devices": -1}, r"trainer\.devices=-1"),
        ({"devices": True}, r"trainer\.devices=True"),
        ({"devices": []}, r"trainer\.devices=\[\]"),
        ({"devices": "two"}, r"trainer\.devices='two'"),
        ({"devices": [0, -1]}, r"trainer\.devices"),
        ({"num_nodes": None}, r"trainer\.num_nodes"),
        ({"num_threads": 0}, r"trainer\.num_threads=0"),
        ({"compile_backend": True}, r"trainer\.compile_backend=True must be null or a backend"),
        ({"max_steps": 3}, r"trainer\.max_steps is set by every stage; use max_steps_per_stage"),
        ({"callbacks": []}, r"trainer\.callbacks"),
    ],
)
def test_trainer_values_that_cannot_work_name_the_key(trainer, key):
    with pytest.raises(ConfigError, match=key):
        checks.check_trainer(trainer)


@pytest.mark.parametrize("devices", [1, 8, "auto", [0, 1], (3,)])
def test_trainer_takes_lightning_s_arguments(devices):
    checks.check_trainer({"devices": devices, "num_threads": None, "precision": "bf16-mixed", "fast_dev_run": True})


def test_names_are_lightning_s_and_w_and_b_s():
    assert set(checks.STAGE_KEYS) <= set(inspect.signature(lightning.Trainer).parameters)
    assert set(checks.WANDB_KEYS) == set(inspect.signature(WandbLog).parameters) - {"run_dir", "config"}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_precisions_are_known_to_lightning(precision):
    assert precision in checks.PRECISIONS
    lightning.Trainer(accelerator="cpu", precision=precision, logger=False, barebones=True)


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ({"mlflow": {}}, r"unknown key 'logger\.mlflow'; known here: wandb"),
        ({"wandb": {"colour": 1}}, r"unknown key 'logger\.wandb\.colour'; known here: mode, project"),
        ({"wandb": True}, r"logger\.wandb=True must be null or a group"),
        ({"wandb": {"tags": "a"}}, r"logger\.wandb\.tags='a' must be a list"),
    ],
)
def test_unknown_logger_keys_are_refused(logger, message):
    with pytest.raises(ConfigError, match=message):
        checks.check_logger(logger)


def test_known_logger_keys_pass():
    checks.check_logger({})
    checks.check_logger({"wandb": None})
    checks.check_logger({"wandb": {"mode": "offline", "tags": ["a"], "entity": None, "group": "x"}})
