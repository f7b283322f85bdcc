"""What dtype a kernel is given."""

from __future__ import annotations

import torch

from internvl_lab.models.attention.precision import half_states, kernel_inputs


def test_sdpa_on_a_cpu_gets_fp32_and_runs_outside_autocast() -> None:
    state = torch.ones(2, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16), kernel_inputs(state, state) as given:
        assert {x.dtype for x in given} == {torch.float32}
        assert not torch.is_autocast_enabled("cpu")


def test_fp32_passes_untouched() -> None:
    state = torch.ones(2)
    with kernel_inputs(state) as (given,):
        assert given is state


def test_kernels_get_the_values_half_precision_or_autocast_s() -> None:
    full, half = torch.ones(2), torch.ones(2, dtype=torch.float16)
    assert {x.dtype for x in half_states(full, full, half)} == {torch.float16}
    with torch.autocast("cpu", torch.bfloat16):
        assert {x.dtype for x in half_states(full, full, full)} == {torch.bfloat16}
