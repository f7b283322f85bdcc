from __future__ import annotations

import pytest
import torch
from torch import nn

from internvl_lab.bench import head as bench
from internvl_lab.bench.head import HeadSetting, bench_head, build_runs, naive_mean, supervised_mean
from internvl_lab.constants import IGNORE_INDEX
from internvl_lab.errors import ConfigError, InternVLLabError

TINY = HeadSetting(rows=40, vocab_size=50, hidden_size=8)


@pytest.mark.parametrize("byte_budget", [1 << 30, 3 * 50 * 4])
def test_both_heads_give_the_same_loss_and_gradients(byte_budget: int) -> None:
    head = nn.Linear(8, 50, bias=False)
    labels = torch.randint(0, 50, (1, 40)).masked_fill(torch.rand(1, 40) > 0.3, IGNORE_INDEX)
    hidden = torch.randn(1, 40, 8, requires_grad=True)
    ours, naive = supervised_mean(head, hidden, labels, byte_budget), naive_mean(head, hidden, labels)
    torch.testing.assert_close(ours, naive, atol=1e-6, rtol=0)
    inputs = (hidden, head.weight)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(naive, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_runs_share_tensors_and_repeat_exactly(dtype: str) -> None:
    setting = HeadSetting(rows=40, vocab_size=50, hidden_size=8, dtype=dtype)
    runs = build_runs(setting)
    losses = {name: float(run()) for name, run in runs.items()}
    assert losses == {name: float(run()) for name, run in runs.items()}  # no gradient accumulates, no weight moves
    assert losses["ours"] == pytest.approx(losses["naive"], abs=bench.LOSS_TOLERANCE[dtype])
    assert {name: float(run()) for name, run in build_runs(setting, seed=1).items()} != losses


def test_supervised_share_is_that_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(bench, "_forward_backward", lambda loss_of, head, hidden, labels: seen.append(labels) or 0.0)
    for share, count in ((0.15, 6), (1.0, 40), (0.001, 1)):
        build_runs(HeadSetting(40, 50, 8, share))["ours"]()
        assert int((seen.pop() != IGNORE_INDEX).sum()) == count


def test_report_compares_time_and_memory() -> None:
    report = bench_head(HeadSetting(rows=600, vocab_size=20000, hidden_size=8), repeats=1)
    assert report.ratios["naive_time"] == report.ours["time_s"]["median"] / report.peers["naive"]["time_s"]["median"]
    assert report.setting["weight_gradient_mib"] == 0.6
    if report.ours["extra_peak_mib"] is None:
        assert "naive_memory" not in report.ratios
    else:  # 600 x 20000 fp32 logits are 46 MiB, of which 15 % are supervised
        assert report.peers["naive"]["extra_peak_mib"] > 46
        assert report.ratios["naive_memory"] < 0.5


def test_heads_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "naive_mean", lambda head, hidden, labels: head(hidden).mean())
    with pytest.raises(InternVLLabError, match="naive"):
        bench_head(TINY, repeats=1)


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"vocab_size": 0}, {"supervised_share": 0.0}, {"dtype": "float16"}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        HeadSetting(**wrong)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_report_of_a_gpu() -> None:
    report = bench_head(HeadSetting(rows=4096, dtype="bfloat16", device="cuda"), repeats=2)
    assert report.clock == "CUDA events"
    assert report.ratios["naive_memory"] < 0.5 and report.ratios["naive_time"] < 0.5
