from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from internvl_lab.config import TestTimeConfig
from internvl_lab.errors import InternVLLabError
from internvl_lab.inference.test_time import Problem, Respondent, SampleStore, collect, judge, summarise, write_report
from internvl_lab.inference.test_time.report import result_table

MakeConfig = Callable[..., TestTimeConfig]


def finish(config: TestTimeConfig, problems: list[Problem], respondent: Respondent) -> dict[str, Path]:
    store = SampleStore(Path(config.out), {})
    collect(config, problems, lambda _: respondent, store)
    results = summarise(config, store.records, judge(config, problems, lambda _: respondent, store))
    assert result_table(results[0]).row_count == len(results[0].rows)
    return write_report(config, results, list(store.records.values()), {"seed": 0})


def test_a_run_leaves_report_plot_and_numbers(
    config_of: MakeConfig, problems: list[Problem], respondent: Respondent
) -> None:
    paths = finish(config_of(), problems, respondent)
    text = paths["report"].read_text(encoding="utf-8")
    numbers = json.loads(paths["numbers"].read_text(encoding="utf-8"))
    majority = numbers["tasks"]["all"]["rows"]["majority"]
    assert numbers["headline"] == {"row": "majority", "score": majority["score"]["mean"]}
    assert f"majority vote, N = 3: {majority['score']['mean']:.3f}" in text
    for words in ("![curves](curves.png)", "## all (6 questions)", "## ocr (3 questions)", "- seed: `0`", "&lt;image"):
        assert words in text
    table = list(csv.DictReader(paths["table"].read_text(encoding="utf-8").splitlines()))
    assert [(row["result"], row["N"]) for row in table if row["task"] == "ocr"] == [
        *(("direct", "1"), ("cot", "1"), ("sample", "1")),
        *((name, "3") for name in ("majority", "weighted", "best_of_n", "pass")),
        *((name, n) for name in ("majority", "weighted", "best_of_n", "pass") for n in ("1", "2")),
    ]
    (row,) = [row for row in table if (row["task"], row["result"], row["N"]) == ("all", "majority", "3")]
    assert float(row["score"]) == pytest.approx(majority["score"]["mean"], rel=1e-5)
    assert float(row["delta_low"]) == pytest.approx(majority["delta"]["low"], rel=1e-5)
    assert float(row["gflops"]) == pytest.approx(majority["flops"] / 1e9, rel=1e-5)
    with Image.open(paths["curves"]) as image:
        assert image.width > 800


def test_greedy_runs_have_no_curves(config_of: MakeConfig, problems: list[Problem], respondent: Respondent) -> None:
    paths = finish(config_of(samples=0, select="first"), problems, respondent)
    assert "curves" not in paths and not (paths["report"].parent / "curves.png").exists()
    assert "with steps, greedy, N = 1" in paths["report"].read_text(encoding="utf-8")


def test_a_run_without_an_answer_says_so(config_of: MakeConfig) -> None:
    config = config_of()
    with pytest.raises(InternVLLabError, match="no question could be asked"):
        write_report(config, summarise(config, {}, {}), [], {})
