import pytest

from internvl_lab.config import CostConfig
from internvl_lab.config.compose import compose
from internvl_lab.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"mfu": 0.0}, r"cost\.mfu=0\.0"),
        ({"mfu": 1.5}, r"cost\.mfu=1\.5"),
        ({"memory_gb": 0.0}, r"cost\.memory_gb"),
        ({"peak_tflops": -1.0}, r"cost\.peak_tflops"),
        ({"price_per_gpu_hour": -0.1}, r"cost\.price_per_gpu_hour"),
        ({"gpus_per_node": 0}, r"cost\.gpus_per_node"),
        ({"max_gpus": 0}, r"cost\.max_gpus"),
        ({"reserve": 1.0}, r"cost\.reserve"),
    ],
)
def test_impossible_machines_name_the_key(values, key):
    with pytest.raises(ConfigError, match=key):
        CostConfig(**values)


def test_the_file_holds_the_defaults_of_the_class():
    assert compose([]).cost == CostConfig()
