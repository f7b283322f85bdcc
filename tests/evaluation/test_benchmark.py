"""Every shipped benchmark loads, says what it needs, and keeps to the report's limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from internvl_lab.errors import ConfigError
from internvl_lab.evaluation.benchmark import CAPABILITIES, load_benchmarks, parse_benchmark
from internvl_lab.evaluation.benchmark_report import published_scores


def test_all_shipped_benchmarks_load() -> None:
    benchmarks = load_benchmarks()
    assert {benchmark.capability for benchmark in benchmarks.values()} == set(CAPABILITIES) - {"miniworld"}
    assert all(benchmark.title and benchmark.download for benchmark in benchmarks.values())


def test_every_published_row_has_its_benchmark() -> None:
    named = {benchmark.published or name for name, benchmark in load_benchmarks().items()}
    # an average of two sets, a second score of one set, and a set whose subtitles are another release
    assert set(published_scores()) - named == {"mmmu_pro", "vcr_en_easy/jaccard", "videomme_subtitles"}


def test_tile_limits_are_those_of_the_report() -> None:
    limits = {name: benchmark.max_tiles for name, benchmark in load_benchmarks().items()}
    assert (limits["chartqa"], limits["docvqa"], limits["infovqa"], limits["mvbench"], limits["mmstar"]) == (
        12,
        18,
        24,
        1,
        6,
    )


@pytest.mark.parametrize("name", sorted(load_benchmarks()))
def test_every_file_says_how_to_run_it_and_what_is_missing(name: str, tmp_path: Path) -> None:
    benchmark = load_benchmarks()[name]
    with pytest.raises(ConfigError, match=f"{name}: .* is missing: {benchmark.download.split()[0]}.*, put it there"):
        benchmark.find_files(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capability": "taste"}, "capability=taste"),
        ({"metric": "luck"}, "metric=luck"),
        ({"tiles": "all"}, "tiles=all"),
        ({"max_tiles": 0}, "max_tiles"),
        ({"promt": "x"}, "unknown key 'benchmark t.promt'"),
    ],
)
def test_impossible_benchmarks(change: dict[str, Any], message: str) -> None:
    values = {"title": "T", "capability": "ocr", "metric": "anls", "files": "t.tsv", "download": "get it"}
    with pytest.raises(ConfigError, match=message):
        parse_benchmark("t", {**values, **change})
