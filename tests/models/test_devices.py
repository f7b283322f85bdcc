"""Devices are found by key and by the driver's own names, and nothing is guessed."""

from __future__ import annotations

import pytest

from internvl_lab.models.devices import DEVICES, GIB, find_device


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100 pcie"),
        ("NVIDIA H100 NVL", "h100 nvl"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100 40gb"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        *[(key, key) for key in DEVICES],
    ],
)
def test_a_device_is_found_by_its_key_and_by_the_drivers_name(name: str, key: str) -> None:
    assert find_device(name) is DEVICES[key]


@pytest.mark.parametrize("name", ["cpu", "", "NVIDIA GH200 480GB", "NVIDIA A10", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"])
def test_an_unknown_device_is_none(name: str) -> None:
    assert find_device(name) is None


def test_the_values_are_those_of_the_data_sheets() -> None:
    assert DEVICES["h100"].peak_bf16_flops == DEVICES["h200"].peak_bf16_flops == 989e12
    assert DEVICES["a100"].peak_bf16_flops == 312e12
    assert all(20 * GIB < device.memory_bytes < 192 * GIB for device in DEVICES.values())
