"""Names of tasks, and tile limits of questions with several images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from internvl_lab.config import MiniworldConfig, TilingConfig
from internvl_lab.config.evaluate import EvaluateConfig
from internvl_lab.data.miniworld.vocabulary import TASKS
from internvl_lab.errors import ConfigError
from internvl_lab.evaluation import suites
from internvl_lab.evaluation.suites import Suite, build_suites, expand_names
from internvl_lab.text import ChatTemplate


def test_names() -> None:
    assert expand_names(["miniworld"]) == list(TASKS)
    assert expand_names(["mmstar", "video", "mmstar"]) == ["mmstar", "video"]
    assert {"pope", "hallusionbench"} <= set(expand_names(["all_hallucination"]))


@pytest.mark.parametrize("word", ["mmstarr", "hallucination", "all_miniworlds", ""])
def test_unknown_names_list_what_there_is(word: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown task '{word}'; there are miniworld, .*mmstar.*all_ocr"):
        expand_names(["pope", word])


@pytest.mark.parametrize(
    ("max_tiles", "tiles", "images", "limit"),
    [
        (None, "shared", 3, 2),  # the checkpoint's own
        (12, "shared", 3, 12),  # 4 for each
        (12, "each", 1, 12),
        (12, "each", 3, 36),
        (12, "each", 8, 64),  # 64 in all
        (12, "each", 100, 100),  # at least one each
        (6, "each", 0, 6),
    ],
)
def test_tile_limits(max_tiles: int | None, tiles: str, images: int, limit: int) -> None:
    suite = Suite("t", "T", "ocr", "anls", (), 4, max_tiles, tiles)
    own = TilingConfig(tile_size=56, num_visual_tokens=4, max_tiles=2)
    assert suite.tiling(own, images).max_tiles == limit


def test_miniworld_needs_no_files(tmp_path: Path, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "MiniworldConfig", partial(MiniworldConfig, num_val=44))
    cfg = EvaluateConfig("c", ("grounding", "text_only"), data=str(tmp_path), samples_per_task=2)
    grounding, text = build_suites(cfg, template)
    assert (grounding.metric, text.metric, len(grounding.items), grounding.max_tiles) == (
        "box_hit",
        "exact_match",
        2,
        None,
    )
    assert grounding.items[0].turns and not grounding.judged


def test_a_missing_file_shows_at_once(tmp_path: Path, template: ChatTemplate) -> None:
    with pytest.raises(ConfigError, match=r"MMStar\.tsv is missing: download MMStar\.tsv of VLMEvalKit"):
        build_suites(EvaluateConfig("c", ("mmstar", "miniworld"), data=str(tmp_path)), template)
