"""Backends: equal to a plain reference in values and gradients, isolated to the bit, refused by name."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from internvl_lab.errors import ConfigError
from internvl_lab.models import BACKENDS, resolve
from internvl_lab.models.attention import block_diagonal_mask, tile_attention

LENGTHS = [5, 1, 19, 7]


class Layer(nn.Module):
    """Stand in for a decoder's attention layer: 6 heads on 2 key-value heads."""

    num_key_value_groups = 3
    is_causal = True


def states(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = [(1, heads, sum(LENGTHS), 8) for heads in (6, 2, 2)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def reference(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax by hand, sample by sample, head by head: (1, T, H, d)."""
    key, value = (x.repeat_interleave(3, dim=1) for x in (key, value))
    outputs = []
    for q, k, v in zip(*(x.split(LENGTHS, dim=2) for x in (query, key, value)), strict=True):
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        outputs.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v)
    return torch.cat(outputs, dim=2).transpose(1, 2)


def attend(name: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    backend = resolve(name)
    layout = backend.lay_out(torch.tensor([0, *LENGTHS]).cumsum(0).int(), max(LENGTHS))
    mask = layout.pop("attention_mask")
    function = ALL_ATTENTION_FUNCTIONS[backend.registered_name]
    output, weights = function(Layer(), query, key, value, mask, scaling=1 / math.sqrt(8), **layout)
    assert weights is None
    return output


@pytest.mark.parametrize("name", BACKENDS)
def test_values_and_gradients_equal_the_reference(name: str) -> None:
    ours, wanted = states(), states()
    output, expected = attend(name, *ours), reference(*wanted)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    weight = torch.randn(expected.shape)
    (output * weight).sum().backward()
    (expected * weight).sum().backward()
    for mine, theirs in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BACKENDS)
def test_no_bit_of_another_sample_moves(name: str, dtype: torch.dtype) -> None:
    plain = [x.detach() for x in states(dtype)]
    moved = [x.clone() for x in plain]
    for x in moved:
        x[:, :, 6:25] += 3.0
    before, after = attend(name, *plain), attend(name, *moved)
    others = [i for i in range(sum(LENGTHS)) if not 6 <= i < 25]
    assert torch.equal(before[:, others], after[:, others])
    assert not torch.equal(before[:, 6:25], after[:, 6:25])


@pytest.mark.parametrize("name", BACKENDS)
def test_bf16_comes_back_as_bf16_and_close(name: str) -> None:
    output = attend(name, *states(torch.bfloat16))
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), reference(*states()), rtol=0.05, atol=0.05)


def test_tiles_attend_in_both_directions() -> None:
    query, key, value = (torch.randn(3, 2, 17, 8) for _ in range(3))
    expected = ((query @ key.transpose(2, 3) / math.sqrt(8)).softmax(-1) @ value).transpose(1, 2)
    output, _ = tile_attention(Layer(), query, key, value, None, scaling=1 / math.sqrt(8))
    torch.testing.assert_close(output, expected)


def test_autocast_leaves_the_kernel_in_fp32() -> None:
    inputs = [torch.randn(3, 2, 17, 8) for _ in range(3)]
    plain, _ = tile_attention(Layer(), *inputs, None)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = tile_attention(Layer(), *inputs, None)
    assert torch.equal(plain, mixed)


def test_the_mask_is_causal_inside_samples_and_closed_between_them() -> None:
    mask = block_diagonal_mask(torch.tensor([0, 2, 3], dtype=torch.int32), 3)
    assert mask.tolist() == [[[[True, False, False], [True, True, False], [False, False, True]]]]


def test_names_are_known_to_transformers_and_do_not_trigger_its_flash_checks() -> None:
    for backend in BACKENDS.values():
        assert backend.registered_name in ALL_ATTENTION_FUNCTIONS
        assert "flash" not in backend.registered_name


def test_auto_is_the_fast_one_and_unknown_names_list_the_choices() -> None:
    assert resolve("auto").name == "sdpa_docs"
    with pytest.raises(ConfigError, match=r"model\.attention='fast'.*auto, sdpa_docs, dense"):
        resolve("fast")
