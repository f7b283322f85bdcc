"""Compiled layers: the same numbers, the same names, and no new graph for every pack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from internvl_lab.config import ModelConfig
from internvl_lab.models import InternVL, compile_layers


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def loss_and_gradients(model: InternVL, pack: Any) -> list[torch.Tensor]:
    model.zero_grad()
    loss = model.token_losses(model(**pack.inputs), pack.labels).losses.sum()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("checkpointing", [(), ("vision", "language")])
def test_compiled_layers_give_the_same_loss_and_gradients(
    config: ModelConfig,
    build_model: Callable[..., InternVL],
    pack_of: Callable[..., Any],
    checkpointing: tuple[str, ...],
) -> None:
    plain, compiled = build_model(config).train(), build_model(config).train()
    for model in (plain, compiled):
        model.set_gradient_checkpointing(checkpointing)
    compile_layers(compiled, "eager")
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for samples in ([(9, 1), (5, 0)], [(12, 2), (7, 1), (6, 0)]):
        pack = pack_of(samples)
        for a, b in zip(loss_and_gradients(plain, pack), loss_and_gradients(compiled, pack), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)


def test_packs_of_other_lengths_need_no_new_graphs(
    small_config: ModelConfig, build_model: Callable[..., InternVL], pack_of: Callable[..., Any]
) -> None:
    model, counter = build_model(small_config).train(), CompileCounter()
    compile_layers(model, counter)  # type: ignore[arg-type]
    counts = []
    for number in range(8):
        samples = [(7 + 2 * number, 1 + number % 3), *[(5 + k, k % 2) for k in range(number)]]
        loss_and_gradients(model, pack_of(samples))
        counts.append(counter.frame_count)
    assert counts[0] > 0
    assert counts[-1] == counts[3], counts
