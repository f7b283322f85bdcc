"""Bytes of numbers for each dtype and precision; `test_memory` holds them against real steps."""

from __future__ import annotations

import pytest

from internvl_lab.scaling.memory_numerics import numerics


@pytest.mark.parametrize(
    ("dtype", "precision", "keys", "weight", "compute", "stream", "copy"),
    [
        ("float32", "32-true", {}, 4, 4, 4, 0),
        ("float32", "bf16-mixed", {}, 4, 2, 4, 2),
        ("bfloat16", "bf16-mixed", {}, 2, 2, 2, 0),
        ("bfloat16", "32-true", {}, 2, 2, 2, 0),
        ("float32", "bf16-mixed", {"sharded": True}, 4, 2, 2, 0),
    ],
)
def test_bytes_of_numbers(dtype, precision, keys, weight, compute, stream, copy):
    n = numerics(dtype, precision, **keys)
    assert (n.weight, n.compute, n.stream, n.weight_copy) == (weight, compute, stream, copy)
    assert n.attention == compute
    assert numerics(dtype, precision, on_cpu=True, **keys).attention == 4


def test_only_a_gpu_s_autocast_runs_layer_norm_in_fp32():
    assert numerics("bfloat16", "bf16-mixed").layer_norm == 4
    assert numerics("bfloat16", "32-true").layer_norm == 2
    assert numerics("bfloat16", "bf16-mixed", on_cpu=True).layer_norm == 2


def test_fsdp2_sums_gradients_in_fp32_under_mixed_precision():
    assert numerics("bfloat16", "bf16-mixed", sharded=True).reduced == 4
    assert numerics("bfloat16", "32-true", sharded=True).reduced == 2
