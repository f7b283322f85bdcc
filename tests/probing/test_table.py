from dataclasses import replace

import pytest

from internvl_lab.probing.published import CLASSIFICATION, SEGMENTATION
from internvl_lab.probing.score import Score
from internvl_lab.probing.table import (
    MEAN,
    headline,
    markdown,
    published_classification,
    read_summaries,
    score_rows,
    summarise,
    write_scores,
    write_summaries,
)

BASE = Score("mini", 0, "linear", 2, "shape", "world", 10, 0.5, None, 0.1)
SCORES = [
    replace(BASE, seed=seed, head=head, depth=depth, target=target, accuracy=value + 0.1 * seed + 0.01 * depth)
    for seed in (0, 1)
    for head, value in (("linear", 0.4), ("attention", 0.6))
    for depth in (0, 2)
    for target in ("shape", "color")
]


def test_seeds_are_averaged_and_targets_too():
    found = {(s.head, s.depth, s.target): s for s in summarise(SCORES)}
    assert len(found) == 2 * 2 * 3
    one = found["linear", 2, "shape"]
    assert one.mean == pytest.approx(0.47)
    assert one.spread == pytest.approx(0.1 / 2**0.5)
    assert one.seeds == 2
    assert found["attention", 2, MEAN].mean == pytest.approx(0.67)
    assert found["attention", 2, MEAN].spread == pytest.approx(0.1 / 2**0.5)


def test_the_spread_of_several_runs_is_over_the_runs_alone():
    scores = [
        replace(BASE, run=run, seed=seed, accuracy=a)
        for run, seed, a in (("x", 0, 0.2), ("x", 1, 0.4), ("y", 0, 0.5), ("y", 1, 0.7))
    ]
    (found,) = summarise(scores)
    assert (found.mean, found.seeds) == (pytest.approx(0.45), 2)
    assert found.spread == pytest.approx(0.3 / 2**0.5)
    one_run = summarise(scores[:2])[0]
    assert (one_run.seeds, one_run.spread) == (2, pytest.approx(0.2 / 2**0.5))


def test_one_seed_has_no_spread():
    (found,) = summarise([BASE])
    assert (found.mean, found.spread, found.seeds) == (0.5, 0.0, 1)


def test_the_table_shows_the_last_depth_and_the_gain_over_linear():
    shown = headline(summarise(SCORES))
    assert {s.depth for s in shown} == {2}
    head, rows = score_rows(shown)
    assert head == ["encoder", "head", "shape", "color", "average", "Δ linear"]
    assert rows == [
        ["mini", "linear", "47.0 ± 7.1", "47.0 ± 7.1", "47.0", ""],
        ["mini", "attention", "67.0 ± 7.1", "67.0 ± 7.1", "67.0", "+20.0"],
    ]


def test_several_sets_are_the_columns():
    scores = [replace(BASE, target="class", test=test, accuracy=value) for test, value in (("V2", 0.2), ("A", 0.4))]
    head, rows = score_rows(summarise(scores))
    assert head[2:4] == ["V2", "A"]
    assert rows == [["mini", "linear", "20.0", "40.0", "30.0", ""]]


def test_a_test_without_any_label_has_no_average():
    assert score_rows(summarise([replace(BASE, accuracy=float("nan"))]))[1] == [["mini", "linear", "nan", "nan", ""]]


def test_files_hold_what_was_given(tmp_path):
    summaries = summarise(SCORES)
    again = read_summaries(write_summaries(tmp_path / "layerwise.csv", summaries))
    assert [replace(s, mean=round(s.mean, 5), spread=round(s.spread, 5)) for s in summaries] == again
    lines = write_scores(tmp_path / "probe.csv", SCORES).read_text().splitlines()
    assert lines[0].startswith("encoder,seed,head,depth,target,test,n,accuracy")
    assert len(lines) == 1 + len(SCORES)
    assert lines[1] == "mini,0,linear,0,shape,world,10,0.40000,,0.1,"


def test_markdown_is_a_table():
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_published_rows_are_the_report_s():
    text = published_classification()
    assert "| InternViT-6B-448px-V2.5 | linear | 86.6 | 90.1 | 77.8 | 73.7 | 82.7 | 60.0 | 78.5 |" in text
    assert "| InternViT-6B-448px-V2.5 | attention | 88.3 | 91.2 | 81.3 | 86.9 | 92.4 | 70.8 | 85.2 | +6.7 |" in text
    for heads in CLASSIFICATION.values():
        for values in heads.values():
            if None not in values:
                assert sum(values[:-1]) / 6 == pytest.approx(values[-1], abs=0.06)
    for heads in SEGMENTATION.values():
        for values in heads.values():
            assert sum(values[:-1]) / 2 == pytest.approx(values[-1], abs=0.15)
