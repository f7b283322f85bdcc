import pytest

from internvl_lab.config import SamplingConfig, TestTimeConfig
from internvl_lab.config.compose import CONFIG_DIR, compose_test_time
from internvl_lab.errors import ConfigError

CHOICES = sorted(path.stem for path in (CONFIG_DIR / "test_time").glob("*.yaml"))
GIVEN = ["checkpoint=DIR", "out=DIR"]


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_composes_under_its_own_name(name):
    assert compose_test_time([f"test_time={name}", *GIVEN]).name == name


def test_the_command_of_the_issue():
    config = compose_test_time(["checkpoint=DIR", "tasks=[a,b]", "out=X", "samples=4", "temperature=0.9"])
    assert (config.checkpoint, config.tasks, config.samples, config.select) == (("DIR",), ("a", "b"), 4, "majority")
    assert config.sampling == SamplingConfig(0.9, 0.95, 0, num_samples=4)
    assert compose_test_time(["checkpoint=[A,B]", "tasks=a", "out=X"]).checkpoint == ("A", "B")


def test_the_defaults_of_file_and_code_agree():
    config = compose_test_time(["test_time=none", *GIVEN])
    assert config == TestTimeConfig(checkpoint=("DIR",), out="DIR")


def test_who_judges():
    assert compose_test_time(["test_time=best_of_n", *GIVEN]).judging_critic is None
    assert compose_test_time(["test_time=self_critique", *GIVEN]).judging_critic == "self"
    assert (
        compose_test_time(["test_time=best_of_n", "critic=asset:quickstart", *GIVEN]).judging_critic
        == "asset:quickstart"
    )
    assert compose_test_time(["test_time=cot", "critic=self", *GIVEN]).judging_critic is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["out=X"], "checkpoint"),
        (["checkpoint=X"], "out"),
        ([*GIVEN, "colour=red"], "unknown key 'colour'"),
        ([*GIVEN, "test_time=nope"], "choices in test_time: best_of_n, cot"),
        ([*GIVEN, "prompt=loud"], "prompt='loud' must be one of direct, cot"),
        ([*GIVEN, "select=x"], "select='x'"),
        ([*GIVEN, "samples=0"], "select=majority needs samples"),
        ([*GIVEN, "temperature=0"], "temperature=0 would draw the same"),
        ([*GIVEN, "top_p=2"], "top_p"),
        ([*GIVEN, "samples=x"], "samples='x' must be int"),
    ],
)
def test_wrong_settings_are_one_clear_error(overrides, message):
    with pytest.raises(ConfigError) as caught:
        compose_test_time(overrides)
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1
