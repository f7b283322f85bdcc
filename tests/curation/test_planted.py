from __future__ import annotations

import json
from collections import Counter

from internvl_lab.curation.planted import Size, make_planted, write_planted
from internvl_lab.curation.planted_faults import ANSWERS

SMALL = Size(texts=240, pictures=24, each=2)


def contents(planted):
    return [(p.source, json.dumps(p.record), p.images, p.fault, p.line) for p in planted]


def test_a_seed_makes_the_same_set_again():
    assert contents(make_planted(3, SMALL)) == contents(make_planted(3, SMALL))
    first, second = (set(map(str, contents(make_planted(seed, SMALL)))) for seed in (3, 4))
    assert len(first & second) < 0.1 * len(first)


def test_the_whole_set_is_as_large_as_promised():
    size = Size()
    assert size.texts + size.pictures >= 2000
    assert size.each * (len(ANSWERS) + 5 + 4) >= 1000


def test_every_fault_is_there():
    planted = make_planted(0, SMALL)
    faults = Counter(p.fault for p in planted)
    assert faults.pop("") == 264
    assert faults.pop("exact_duplicate") == 4
    assert set(faults.values()) == {2}
    assert len(faults) == len(ANSWERS) + 7


def test_files_and_labels_fit(tmp_path):
    count = write_planted(tmp_path, 0, SMALL)
    meta = json.loads((tmp_path / "meta.json").read_bytes())
    labels = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert count == {"records": len(labels), "faulty": sum(bool(label["fault"]) for label in labels)}
    lengths = Counter(label["key"].partition(":")[0] for label in labels)
    for name, entry in meta.items():
        rows = (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(rows) == entry["length"] == lengths[name]
