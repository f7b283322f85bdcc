from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from internvl_lab.bench import peers
from internvl_lab.bench import step as bench
from internvl_lab.bench.samples import WORKLOADS, draw_samples
from internvl_lab.bench.setting import StepSetting, find_setting
from internvl_lab.bench.step import bench_step
from internvl_lab.bench.timing import CpuClock
from internvl_lab.bench.variants import Variant
from internvl_lab.constants import PARTS
from internvl_lab.errors import InternVLLabError
from internvl_lab.models import step_flops

TINY = WORKLOADS["tiny"]
SETTING = StepSetting(TINY)
PEERS = ["padded", "length_sorted", "hf_packed", "recipe"]


def test_report_names_all_peers_with_the_ratios_of_the_medians() -> None:
    report = bench_step(SETTING, repeats=2)
    assert list(report.peers) == list(report.ratios) == PEERS
    for name, values in report.peers.items():
        assert values.keys() == report.ours.keys()
        speed = values["tokens_per_s"]["median"]
        assert report.ratios[name] == report.ours["tokens_per_s"]["median"] / speed
    samples = draw_samples(TINY)
    num_tokens, num_tiles = sum(len(s.input_ids) for s in samples), sum(len(s.tiles) for s in samples)
    assert (report.setting["tokens"], report.setting["tiles"]) == (num_tokens, num_tiles)
    shortest = report.ours["time_s"]["min"]
    assert report.ours["tokens_per_s"]["max"] == pytest.approx(num_tokens / shortest)
    assert report.ours["tiles_per_s"]["max"] == pytest.approx(num_tiles / shortest)
    assert (report.ours["status"], report.ours["recomputes"], report.peers["recipe"]["recomputes"]) == (
        "ok",
        "none",
        "all",
    )
    assert report.clock == CpuClock.name
    assert report.ours["mfu"] is None, "the table of devices knows no CPU"


def test_mfu_is_required_work_over_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "device_peak", lambda device, half: 1e9)
    report = bench_step(SETTING, repeats=1)
    samples = draw_samples(TINY)
    lengths = [len(s.input_ids) for s in samples]
    flops = step_flops(
        TINY.model,
        tokens=sum(lengths),
        sum_sq=sum(n * n for n in lengths),
        tiles=sum(len(s.tiles) for s in samples),
        supervised_rows=peers.num_targets(samples),
        trainable=PARTS,
    )
    for values in (report.ours, *report.peers.values()):
        assert values["mfu"]["median"] == pytest.approx(flops / values["time_s"]["median"] / 1e9)


@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed"])
def test_half_precision_variants_agree_within_their_tolerance(precision: str) -> None:
    workload = TINY.with_dtype("bfloat16" if precision == "bf16" else "float32")
    report = bench_step(StepSetting(workload, precision=precision), repeats=1)
    assert report.setting["precision"] == precision


def test_a_peer_without_room_is_reported_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Variant, "settle", lambda variant, clock: variant.padding < 0.2)
    report = bench_step(SETTING, repeats=1)
    assert report.peers["padded"].keys() == {"status", "recomputes", "padding"}
    assert report.peers["padded"]["status"] == "out of memory"
    assert list(report.ratios) == PEERS[1:]


def test_ours_without_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Variant, "settle", lambda variant, clock: variant.ladder[0][0] == "all")
    with pytest.raises(InternVLLabError, match="ours runs out of memory"):
        bench_step(SETTING, repeats=1)


def test_variants_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed_inputs = peers.packed_inputs

    def leaky(*args: object) -> dict[str, torch.Tensor]:
        inputs = packed_inputs(*args)  # type: ignore[arg-type]
        return inputs | {"attention_mask": torch.ones_like(inputs["input_ids"])}  # samples now see each other

    monkeypatch.setattr(peers, "packed_inputs", leaky)
    with pytest.raises(InternVLLabError, match="hf_packed"):
        bench_step(SETTING, repeats=1)


@pytest.mark.gpu
@pytest.mark.slow
def test_the_1b_model_with_short_packs_on_a_gpu() -> None:
    setting = find_setting("1b", "cuda")
    short = replace(setting.workload, num_samples=4, pack_tokens=4096, pack_tiles=12, batch_size=2)
    report = bench_step(replace(setting, workload=short), repeats=2)
    assert report.clock == "CUDA events"
    assert report.setting["attention"] not in ("sdpa_docs", "dense")
    assert all(values["status"] == "ok" for values in report.peers.values())
    assert report.ours["peak_mib"] * 2**20 > 938e6 * 2
    assert report.ours["mfu"] is None or 0.01 < report.ours["mfu"]["median"] < 1
    assert report.ratios["recipe"] > 1
