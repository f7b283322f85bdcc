from __future__ import annotations

import csv
import io
from pathlib import Path

from internvl_lab.curation.planted import Size
from internvl_lab.curation.quality import COLUMNS, HELD_OUT_SEED, measure_quality, quality_csv
from internvl_lab.curation.rules import UNITS

ROOT = Path(__file__).resolve().parents[2]


def test_rules_find_what_is_planted_and_little_else(tmp_path):
    quality = measure_quality(tmp_path, seed=5, size=Size(texts=150, pictures=30, each=2))
    assert quality.recall >= 0.97
    assert quality.precision >= 0.98
    assert quality.records_of[""] == 180
    assert len(quality.missed) == round((1 - quality.recall) * (quality.records_of.total() - 180))
    rows = list(csv.reader(io.StringIO(quality_csv(quality))))
    assert tuple(rows[0]) == COLUMNS
    assert [row[1] for row in rows if row[0] == "rule"] == list(UNITS)
    assert quality.recall_of("boxes") == 2 / (quality.records_of.total() - 180)
    assert quality.precision_of("boxes") == 1


def test_the_committed_table_meets_the_goal():
    with (ROOT / "notebooks" / "results" / "curation_rules.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    together = rows[f"seed {HELD_OUT_SEED}"]
    assert float(together["recall"]) >= 0.98
    assert float(together["precision"]) >= 0.99
    assert int(rows["clean"]["records"]) >= 2000
    assert int(together["records"]) - int(rows["clean"]["records"]) >= 1000
    assert set(UNITS) <= rows.keys()
