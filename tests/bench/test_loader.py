"""The loader bench: what is read in the worker's own process, the same work in all variants, and clear refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from internvl_lab.bench import loader as bench
from internvl_lab.bench.loader import FIGURES, LoaderSetting, bench_loader, loader_table, our_dataset
from internvl_lab.bench.pages import write_pages
from internvl_lab.bench.pipelines import PIPELINES
from internvl_lab.config import PackingConfig, TilingConfig
from internvl_lab.errors import ConfigError, InternVLLabError, ShardError

SMALL = LoaderSetting(
    samples=10,
    repeats=1,
    tiling=TilingConfig(tile_size=28, num_visual_tokens=1, max_tiles=4),
    packing=PackingConfig(max_tokens=300, max_tiles=12, packs_per_step=1, group_window=1, block_size=64),
)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> LoaderSetting:
    folder = tmp_path_factory.mktemp("pages")
    write_pages(folder, 16, 0)
    return replace(SMALL, shards=str(folder))


def test_ours_holds_the_first_samples_once(setting: LoaderSetting) -> None:
    dataset = our_dataset(setting, "pillow")
    packs = [dataset.plan.pack(k) for k in range(dataset.plan.packs_in_epoch(0))]
    assert sorted(row for pack in packs for _, row in pack.samples) == list(range(10))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", *PIPELINES])
def test_a_variant_reads_tiles_bytes_and_processor_time(name: str, setting: LoaderSetting) -> None:
    figures = bench._in_fresh_process(name, setting)
    assert set(figures) == set(FIGURES)
    assert figures["samples"] == 10
    assert figures["tiles_per_cpu_s"] > 0 and figures["trainer_cpu_s_per_pack"] > 0
    assert 50 < figures["worker_peak_mb"] < 5000, "a worker holds at least Python and torch"
    pixels = figures["tiles"] * 3 * 28 * 28 * (1 if name == "base" else 4)
    assert pixels < figures["bytes_per_pack"] * figures["packs"]


def fake(tiles: dict[str, int]) -> object:
    def run(name: str, setting: LoaderSetting) -> dict[str, float]:
        speed = {"ours": 50.0, "base": 40.0, "official": 10.0, "webdataset": 20.0}[name]
        return dict.fromkeys(FIGURES, 8.0) | {"tiles_per_cpu_s": speed, "samples": 10, "tiles": tiles.get(name, 30)}

    return run


def test_report_has_ours_base_peers_and_ratios(setting: LoaderSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_in_fresh_process", fake({}))
    report = bench_loader(replace(setting, repeats=3))
    assert report["tiles_per_cpu_s"] == 50 and report["base"]["tiles_per_cpu_s"] == 40
    assert set(report["peers"]) == {"official", "webdataset"}
    assert report["ratios"]["ours"]["tiles_per_cpu_s"] == 5 and report["ratios"]["base"]["worker_peak_mb"] == 1
    assert report["backend"] in ("fast", "pillow") and report["index_ms_per_sample"] > 0
    table = loader_table(report)
    assert list(table.columns[0].cells) == ["ours", "base", "official", "webdataset"]


def test_variants_that_did_other_work_are_refused(setting: LoaderSetting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_in_fresh_process", fake({"official": 29}))
    with pytest.raises(InternVLLabError, match=r"nothing to compare.*29"):
        bench_loader(setting)


def test_without_shards_pages_are_made_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def run(name: str, setting: LoaderSetting) -> dict[str, float]:
        seen.append(Path(setting.shards))
        assert list(seen[-1].glob("*.tar"))
        return dict.fromkeys(FIGURES, 1.0)

    monkeypatch.setattr(bench, "_in_fresh_process", run)
    report = bench_loader(SMALL)
    assert report["setting"]["repeats"] == 1
    assert len(seen) == 4 and not seen[0].exists()


@pytest.mark.parametrize(("exit_code", "reason"), [("'a shard is gone'", "a shard is gone"), ("-9", "exit code")])
def test_a_failing_variant_says_why(exit_code: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_CHILD", f"import sys; sys.exit({exit_code})")
    with pytest.raises(InternVLLabError, match=f"variant ours failed: {reason}"):
        bench._in_fresh_process("ours", SMALL)


def test_impossible_settings_are_refused(setting: LoaderSetting) -> None:
    with pytest.raises(ConfigError, match="--samples"):
        bench_loader(replace(setting, samples=-1))
    with pytest.raises(ShardError, match="does not exist"):
        bench_loader(replace(setting, shards="/nowhere"))
