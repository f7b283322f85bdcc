from __future__ import annotations

import csv

import pytest

from internvl_lab.bench.curation import GOAL, bench_curation, extrapolate, make_conversation, measure_peak, slope
from internvl_lab.curation.planted import Size
from internvl_lab.errors import ConfigError


def test_rates_and_quality_beside_the_authors_rule(tmp_path):
    file = tmp_path / "rules.csv"
    report = bench_curation(20, 1, 0, file, size=Size(texts=60, pictures=16, each=1))
    assert report.ours["records_per_s"]["median"] > 0
    assert report.ours["recall"] > 0.9 > report.peers["authors_rule"]["recall"]
    assert report.ours.keys() == report.peers["authors_rule"].keys()
    with file.open(newline="") as lines:
        assert next(csv.DictReader(lines))["kind"] == "together"


def test_memory_on_a_line():
    peaks = {100_000: 400.0, 1_100_000: 431.25}
    assert slope(peaks) == pytest.approx(32.768)
    assert extrapolate(peaks) == pytest.approx(400 + (GOAL - 100_000) * 32.768 / 2**20)


@pytest.mark.slow
def test_the_peak_of_a_run_in_a_process_of_its_own(tmp_path):
    assert 50 < measure_peak(50, tmp_path) < 2000
    assert (tmp_path / "out" / "summary.json").is_file()


def test_records_have_their_size_and_differ():
    texts = [make_conversation(0, i)[1][1] for i in range(50)]
    assert len(set(texts)) == 50
    assert all(850 < len(text) < 1100 for text in texts)


def test_no_records_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        bench_curation(0)
