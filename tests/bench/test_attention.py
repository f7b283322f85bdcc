from __future__ import annotations

import pytest
import torch

from internvl_lab.bench import attention as bench
from internvl_lab.bench.attention import AttentionSetting, bench_attention, build_runs
from internvl_lab.errors import ConfigError, InternVLLabError

TINY = AttentionSetting(tokens=60, samples=5, heads=4, key_value_heads=2, head_size=8)


def test_samples_fill_the_pack_and_follow_the_seed() -> None:
    lengths = TINY.lengths(0)
    assert (sum(lengths), len(lengths), min(lengths) > 0) == (60, 5, True)
    assert lengths == TINY.lengths(0) != TINY.lengths(1)
    assert AttentionSetting(tokens=3, samples=3).lengths(0) == [1, 1, 1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_variants_attend_alike(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs: dict[int, list[torch.Tensor]] = {}

    def keep(attend, states):  # type: ignore[no-untyped-def]
        out = attend(*states)
        outputs[len(outputs)] = [out, *torch.autograd.grad(out.float().square().sum(), states)]
        return 0.0

    monkeypatch.setattr(bench, "_forward_backward", keep)
    setting = AttentionSetting(60, 5, 4, 2, 8, dtype)
    names = [run() is None or name for name, run in build_runs(setting).items()]
    assert names == ["ours", "dense", "padded"]
    tolerance = {"float32": 1e-5, "bfloat16": 5e-2}[dtype]
    for other in (1, 2):
        for mine, theirs in zip(outputs[0], outputs[other], strict=True):
            torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)


def test_report_compares_with_every_backend_that_runs_here() -> None:
    report = bench_attention(TINY, repeats=1)
    assert report.ratios.keys() == {"dense", "padded"}
    assert report.ratios["dense"] == report.ours["time_s"]["median"] / report.peers["dense"]["time_s"]["median"]


def test_variants_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_padded", lambda lengths, query, key, value: query)
    with pytest.raises(InternVLLabError, match="padded"):
        bench_attention(TINY, repeats=1)


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"samples": 61}, {"heads": 3}, {"key_value_heads": 0}, {"dtype": "float16"}]
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        AttentionSetting(**{**vars(TINY), **wrong})  # type: ignore[arg-type]


@pytest.mark.gpu
def test_all_variants_on_a_gpu_attend_as_the_reference_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and the gradients of queries, keys and values, of every kernel that runs there."""
    kept: list[list[torch.Tensor]] = []

    def keep(attend, states):  # type: ignore[no-untyped-def]
        out = attend(*states)
        kept.append([out, *torch.autograd.grad(out.float().square().sum(), states)])
        return 0.0

    monkeypatch.setattr(bench, "_forward_backward", keep)
    setting = AttentionSetting(600, 5, 4, 2, 64, "bfloat16", "cuda")
    results = dict(zip([run() is None or name for name, run in build_runs(setting).items()], kept, strict=True))
    assert results.keys() >= {"ours", "sdpa_docs", "dense"}, "auto is a kernel"
    for name, tensors in results.items():
        for mine, reference in zip(tensors, results["dense"], strict=True):
            error = (mine.float() - reference.float()).norm() / reference.float().norm()
            assert error < 2e-2, name


@pytest.mark.gpu
def test_report_of_a_gpu() -> None:
    report = bench_attention(AttentionSetting(4096, 8, 14, 2, 64, "bfloat16", "cuda"), repeats=2)
    assert report.clock == "CUDA events"
    assert report.ratios["dense"] < 1
