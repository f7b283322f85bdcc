"""The dtype in which a kernel gets queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from internvl_lab.models.attention.kernels import HALF


@contextmanager
def kernel_inputs(*states: Tensor) -> Iterator[Sequence[Tensor]]:
    """Give the states, of any shape, in the dtype that SDPA is fast in, with autocast off so that it stays so."""
    device = states[0].device.type
    if device != "cpu" or (states[-1].dtype == torch.float32 and not torch.is_autocast_enabled("cpu")):
        yield states
        return
    with torch.autocast("cpu", enabled=False):
        yield [state.float() for state in states]


def half_states(*states: Tensor) -> list[Tensor]:
    """Give the states, of any shape, in half precision, for kernels that know nothing else.

    Under autocast, values come in half precision while rotary embeddings leave queries and keys in fp32.
    """
    value = states[-1]
    dtype = value.dtype if value.dtype in HALF else torch.get_autocast_dtype(value.device.type)
    return [state.to(dtype) for state in states]
