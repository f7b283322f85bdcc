"""Kernels of other packages: the arguments each wants, what it says where it is missing, and on a GPU the real ones."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from internvl_lab.config import ModelConfig
from internvl_lab.errors import ConfigError
from internvl_lab.models import InternVL, resolve
from internvl_lab.models.attention import kernels
from internvl_lab.models.attention.kernels import KERNELS, why_not_here, why_not_installed

CU = torch.tensor([0, 3, 8], dtype=torch.int32)
ATTEND = {
    "flash2": kernels.attend_flash2,
    "flash4": kernels.attend_flash4,
    "torch_varlen": kernels.attend_torch_varlen,
}


def reference(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attend causally inside samples, written out: (T, H, d)."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    outputs = []
    for start, end in zip(CU.tolist(), CU.tolist()[1:], strict=False):
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(torch.ones(end - start, end - start).triu(1).bool(), -1e9)
        outputs.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outputs)


def flash2(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int,
    dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
) -> Tensor:  # fmt: skip
    """Take what flash-attn 2.8 takes."""
    assert causal and dropout_p == 0.0 and cu_seqlens_k is cu_seqlens_q
    assert (type(max_seqlen_q), max_seqlen_q, max_seqlen_k) == (int, 5, 5)
    assert softmax_scale is not None
    return reference(q, k, v, softmax_scale)


def flash4(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor | None = None, cu_seqlens_k: Tensor | None = None,
    max_seqlen_q: int | None = None, max_seqlen_k: int | None = None, softmax_scale: float | None = None,
    causal: bool = False,
) -> tuple[Tensor, None]:  # fmt: skip
    """Take what flash-attn-4 takes, and return a pair as it does."""
    assert cu_seqlens_q is not None and max_seqlen_q is not None
    assert cu_seqlens_k is not None and max_seqlen_k is not None
    return flash2(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, 0.0, softmax_scale, causal), None


def old_flash4(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor | None = None, cu_seqlens_k: Tensor | None = None,
    softmax_scale: float | None = None, causal: bool = False,
) -> tuple[Tensor, None]:  # fmt: skip
    """Take what its first versions took: no longest sample."""
    return flash4(q, k, v, cu_seqlens_q, cu_seqlens_k, 5, 5, softmax_scale, causal)


def varlen(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Take what torch 2.12 and 2.13 take."""
    assert enable_gqa == (query.shape[1] != key.shape[1])
    return old_varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)


def old_varlen(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> Tensor:  # fmt: skip
    """Take what torch 2.11 takes."""
    assert window_size == (-1, 0)
    return flash2(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, 0.0, scale, causal=True)


@pytest.mark.parametrize("heads", [(6, 2), (2, 2)])
@pytest.mark.parametrize(
    ("name", "double"),
    [
        ("flash2", flash2),
        ("flash4", flash4),
        ("flash4", old_flash4),
        ("torch_varlen", varlen),
        ("torch_varlen", old_varlen),
    ],
)
def test_each_kernel_gets_its_own_arguments(
    name: str, double: Callable[..., Any], heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def load(module: str, function: str) -> Callable[..., Any]:
        asked.append((module, function))
        return double

    monkeypatch.setattr(kernels, "load_function", load)
    query, key, value = torch.randn(8, heads[0], 4), *torch.randn(2, 8, heads[1], 4)
    output = ATTEND[name](query, key, value, CU, 5, 0.3)
    torch.testing.assert_close(output, reference(query, key, value, 0.3))
    assert asked == [(KERNELS[name].module, KERNELS[name].function)]


def test_the_real_signature_of_torch_is_the_one_of_the_double() -> None:
    function = kernels.load_function("torch.nn.attention.varlen", "varlen_attn")
    assert callable(function)
    assert {"scale", "window_size"} <= kernels._parameters(function)


@pytest.fixture
def fake_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that flash-attn 2 is installed."""
    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = flash2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    kernels.load_function.cache_clear()
    monkeypatch.setattr(kernels, "load_function", kernels.load_function.__wrapped__)


def gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(
        torch, "cuda", SimpleNamespace(is_available=lambda: True, get_device_capability=lambda: capability)
    )


def test_device_capability_and_dtype_decide(fake_flash: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not_here("flash2", "cpu", True) == "it needs a CUDA device, and this is cpu"
    gpu(monkeypatch, (9, 0))
    assert why_not_here("flash2", "cuda", True) is None
    assert "trainer.precision=bf16-mixed or model.dtype=bfloat16" in str(why_not_here("flash2", "cuda", False))
    assert resolve("flash2", "cuda", half=True).name == "flash2"
    gpu(monkeypatch, (7, 5))
    assert why_not_here("flash2", "cuda", True) == "it does not run on devices of compute capability 7.5"
    with pytest.raises(ConfigError, match=r"model\.attention=flash2 is not available: it does not run.*7\.5"):
        resolve("flash2", "cuda", half=True)


def test_a_build_for_another_torch_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise ImportError("undefined\nsymbol")

    monkeypatch.setattr(kernels.importlib, "import_module", broken)
    monkeypatch.setattr(kernels, "load_function", kernels.load_function.__wrapped__)
    assert str(why_not_installed("flash2")).startswith("flash_attn cannot be imported: undefined symbol; pip install")
    with pytest.raises(ConfigError, match="attention flash2 is not available"):
        kernels.kernel_function("flash2")


def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(kernels.importlib, "import_module", absent)
    monkeypatch.setattr(kernels, "load_function", kernels.load_function.__wrapped__)


@pytest.mark.parametrize("name", KERNELS)
def test_a_missing_package_is_one_sentence_before_a_model_is_built(
    name: str, small_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing(monkeypatch)
    with pytest.raises(
        ConfigError, match=rf"model\.attention={name} is not available: module .* is not installed; "
    ) as e:
        InternVL(replace(small_config, attention=name), 57)
    assert KERNELS[name].install in str(e.value)
    assert "\n" not in str(e.value)


def test_a_model_on_a_cpu_says_that_its_kernel_needs_cuda(
    small_config: ModelConfig, build_model: Callable[[ModelConfig], InternVL], pack_of: Callable[..., Any]
) -> None:
    model = build_model(replace(small_config, attention="torch_varlen"))
    with pytest.raises(ConfigError, match=r"model\.attention=torch_varlen.*needs a CUDA device, and this is cpu"):
        model(**pack_of([(4, 0)]).inputs)


@pytest.mark.gpu
@pytest.mark.parametrize("name", KERNELS)
def test_a_model_on_a_gpu_keeps_samples_apart_and_equals_the_loop(
    name: str, config: ModelConfig, build_model: Callable[[ModelConfig], InternVL], pack_of: Callable[..., Any]
) -> None:
    reason = why_not_here(name, "cuda", half=True)
    if reason is not None:
        pytest.skip(reason)
    pack = pack_of([(9, 1), (6, 0), (12, 2)])
    inputs = {k: v.cuda() if isinstance(v, Tensor) else v for k, v in pack.inputs.items()}
    hidden = {}
    for chosen in (name, "sdpa_docs"):
        model = build_model(replace(config, attention=chosen)).cuda().bfloat16()
        hidden[chosen] = model(**inputs)
        changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
        changed["input_ids"][0, pack.lengths[0] + 1] += 1
        others = [i for i in range(sum(pack.lengths)) if not pack.lengths[0] <= i < sum(pack.lengths[:2])]
        assert torch.equal(model(**changed)[:, others], hidden[chosen][:, others])
    scale = hidden["sdpa_docs"].float().abs().max().item()
    torch.testing.assert_close(hidden[name].float(), hidden["sdpa_docs"].float(), rtol=0.1, atol=0.05 * scale)
    assert math.isfinite(scale)
