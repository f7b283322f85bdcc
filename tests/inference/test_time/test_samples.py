from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_lab.config import LanguageConfig, ModelConfig, VisionConfig
from internvl_lab.errors import ConfigError
from internvl_lab.inference.test_time.samples import JsonlFile, Record, Sample, SampleStore, forward_flops
from internvl_lab.models.flops import language_flops

SAMPLE = Sample("a\nb", "b", "text", True, 3, -0.5, True, False, 7.0)
RECORD = Record("c", "samples", "t", "k", "q?", "b", (SAMPLE, SAMPLE), 9, 1, 5.0)


def test_records_come_back(tmp_path: Path) -> None:
    store = SampleStore(tmp_path, {"seed": 1})
    store.add([RECORD])
    assert SampleStore(tmp_path, {"seed": 1}).records == {("c", "samples", "t", "k"): RECORD} == store.records


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    SampleStore(tmp_path, {"seed": 1, "samples": 2}).add([RECORD])
    with pytest.raises(ConfigError, match="made with another seed, top_p: choose another out"):
        SampleStore(tmp_path, {"seed": 2, "samples": 2, "top_p": 1.0})
    assert len(SampleStore(tmp_path, {"seed": 1, "samples": 2}).records) == 1


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    JsonlFile(path).append([{"a": 1}, {"a": "象"}])
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"a": 3')
    file = JsonlFile(path)
    assert file.rows == [{"a": 1}, {"a": "象"}]
    file.append([{"a": 4}])
    assert [json.loads(line)["a"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, "象", 4]


def test_operations_behind_a_prompt_add_up() -> None:
    config = ModelConfig(vision=VisionConfig(), language=LanguageConfig())
    whole = forward_flops(config, 30, tiles=2, rows=11)
    parts = forward_flops(config, 20, tiles=2, rows=1) + forward_flops(config, 10, rows=10, behind=20)
    assert whole == pytest.approx(parts)
    per_token, per_square, per_row = language_flops(config)
    assert forward_flops(config, 10, rows=10, behind=20) == pytest.approx(
        10 * per_token + (900 - 400) * per_square + 10 * per_row
    )
