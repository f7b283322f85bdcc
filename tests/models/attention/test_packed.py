"""Backends: equal to a plain reference in values and gradients, isolated to the bit, refused by name."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from internvl_lab.errors import ConfigError
from internvl_lab.models import BACKENDS, resolve
from internvl_lab.models.attention import PACKED_ATTENTION, PackLayout, block_diagonal_mask, is_half, packed_attention
from internvl_lab.models.attention.kernels import KERNELS, why_not_here

LENGTHS = [5, 1, 19, 7]


class Layer(nn.Module):
    """Stand in for a decoder's attention layer: 6 heads on 2 key-value heads."""

    num_key_value_groups = 3
    is_causal = True


@pytest.fixture(params=list(BACKENDS))
def name(request: pytest.FixtureRequest) -> str:
    """Give the name of every backend; those that cannot run here are skipped, with the reason."""
    chosen = str(request.param)
    if BACKENDS[chosen].needs_kernel:
        here = "cuda" if torch.cuda.is_available() else "cpu"
        reason = why_not_here(chosen, here, half=True)
        if reason is not None:
            pytest.skip(reason)
    return chosen


def place(name: str) -> tuple[str, torch.dtype, float]:
    """Return where a backend is tested, in which dtype, and how far from the reference bf16 may be there."""
    return ("cuda", torch.bfloat16, 0.05) if BACKENDS[name].needs_kernel else ("cpu", torch.float32, 1e-5)


def states(dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = [(1, heads, sum(LENGTHS), 8) for heads in (6, 2, 2)]
    return [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes]


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
    backend = resolve(name, query.device.type, query.dtype == torch.bfloat16)
    layout = backend.lay_out(torch.tensor([0, *LENGTHS]).cumsum(0).int().to(query.device), max(LENGTHS))
    mask = layout.pop("attention_mask")
    function = ALL_ATTENTION_FUNCTIONS[PACKED_ATTENTION]
    output, weights = function(Layer(), query, key, value, mask, scaling=1 / math.sqrt(8), **layout)
    assert weights is None
    return output


def test_values_and_gradients_equal_the_reference(name: str) -> None:
    device, dtype, tolerance = place(name)
    ours, wanted = states(dtype, device), states()
    output, expected = attend(name, *ours), reference(*wanted)
    torch.testing.assert_close(output.float().cpu(), expected, rtol=tolerance, atol=tolerance)
    weight = torch.randn(expected.shape)
    (output * weight.to(output)).sum().backward()
    (expected * weight).sum().backward()
    for mine, theirs in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine.grad.float().cpu(), theirs.grad, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_bit_of_another_sample_moves(name: str, dtype: torch.dtype) -> None:
    device = place(name)[0]
    if device == "cuda" and dtype == torch.float32:
        pytest.skip("kernels know half precision only")
    plain = [x.detach() for x in states(dtype, device)]
    moved = [x.clone() for x in plain]
    for x in moved:
        x[:, :, 6:25] += 3.0
    before, after = attend(name, *plain), attend(name, *moved)
    others = [i for i in range(sum(LENGTHS)) if not 6 <= i < 25]
    assert torch.equal(before[:, others], after[:, others])
    assert not torch.equal(before[:, 6:25], after[:, 6:25])


def test_bf16_comes_back_as_bf16_and_close(name: str) -> None:
    output = attend(name, *states(torch.bfloat16, place(name)[0]))
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float().cpu(), reference(*states()), rtol=0.05, atol=0.05)


def test_the_mask_is_causal_inside_samples_and_closed_between_them() -> None:
    mask = block_diagonal_mask(torch.tensor([0, 2, 3], dtype=torch.int32), 3)
    assert mask.tolist() == [[[[True, False, False], [True, True, False], [False, False, True]]]]


def test_the_name_is_known_to_transformers_and_does_not_trigger_its_flash_checks() -> None:
    assert PACKED_ATTENTION in ALL_ATTENTION_FUNCTIONS
    assert "flash" not in PACKED_ATTENTION


def test_on_a_cpu_auto_is_the_loop_and_unknown_names_list_the_choices() -> None:
    assert resolve("auto").name == "sdpa_docs"
    assert resolve("auto", "cpu", half=True).name == "sdpa_docs"
    with pytest.raises(
        ConfigError, match=r"model\.attention='fast'.*auto, flash2, flash4, torch_varlen, sdpa_docs, dense"
    ):
        resolve("fast")


@pytest.mark.parametrize(
    ("runs", "chosen"),
    [
        (("flash2", "flash4", "torch_varlen"), "flash2"),
        (("flash4", "torch_varlen"), "flash4"),
        (("torch_varlen",), "torch_varlen"),
        ((), "sdpa_docs"),
    ],
)
def test_on_a_gpu_auto_is_the_best_that_runs(
    runs: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "internvl_lab.models.attention.packed.why_not_here", lambda name, *_: None if name in runs else "not here"
    )
    assert resolve("auto", "cuda", half=True).name == chosen
    assert resolve("auto", "cuda", half=False).name == "sdpa_docs", "kernels know half precision only"


def test_half_precision_is_seen_in_the_dtype_and_in_autocast() -> None:
    assert is_half(torch.bfloat16, "cpu")
    assert not is_half(torch.float32, "cpu")
    assert not is_half(torch.float32, "meta")
    with torch.autocast("cpu", torch.bfloat16):
        assert is_half(torch.float32, "cpu")


class Recorder:
    """Stand in for a varlen kernel: compute the reference, and keep the arguments."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, cu: Tensor, longest: int, scaling: float) -> Tensor:
        self.shapes = [tuple(x.shape) for x in (query, key, value)]
        self.dtypes = {x.dtype for x in (query, key, value)}
        self.cu_seqlens, self.max_seqlen, self.scaling = cu, longest, scaling
        return reference(*(x.transpose(0, 1)[None].float() for x in (query, key, value)))[0].to(query.dtype)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_get_flat_states_int32_bounds_and_a_plain_int(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = BACKENDS[name].lay_out(torch.tensor([0, *LENGTHS]).cumsum(0), max(LENGTHS))
    kernel = Recorder()
    pack = replace(layout["pack"], kernel=kernel)
    assert layout["attention_mask"].ndim == 4
    query, key, value = states()
    mixed = (query, key, value.bfloat16())  # as under autocast: rotary embeddings leave fp32
    output, weights = packed_attention(Layer(), *mixed, None, scaling=1 / math.sqrt(8), pack=pack)
    assert weights is None
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), reference(*states()), rtol=0.05, atol=0.05)
    total = sum(LENGTHS)
    assert kernel.shapes == [(total, 6, 8), (total, 2, 8), (total, 2, 8)], "grouped heads are not repeated"
    assert kernel.dtypes == {torch.bfloat16}
    assert kernel.cu_seqlens.dtype == torch.int32
    assert kernel.cu_seqlens.tolist() == [0, 5, 6, 25, 32]
    assert type(kernel.max_seqlen) is int
    assert (kernel.max_seqlen, kernel.scaling) == (19, 1 / math.sqrt(8))


def test_kernels_refuse_dropout() -> None:
    pack = PackLayout(torch.tensor([0, 32]), 32, [], Recorder())
    with pytest.raises(ConfigError, match=r"dropout 0\.1 needs model\.attention=sdpa_docs"):
        packed_attention(Layer(), *states(), None, dropout=0.1, pack=pack)
