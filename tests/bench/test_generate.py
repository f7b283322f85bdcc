from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from internvl_lab.bench import generate as bench
from internvl_lab.bench.generate import GenerateSetting, bench_generate, build_runs
from internvl_lab.errors import ConfigError, InternVLLabError

TINY = GenerateSetting("tiny", samples=3, prompt_tokens=24, tiles=2, new_tokens=4)


def test_all_variants_make_all_their_tokens() -> None:
    runs = build_runs(TINY)
    assert {name: run() for name, run in runs.items()} == {"ours": 12, "one": 4, "hf": 12, "hf_one": 4}


def test_the_prompt_has_the_length_asked_for() -> None:
    for tiles in (0, 2):
        prompt = bench._draw_prompt(replace(TINY, tiles=tiles), seed=0)
        visual = tiles * TINY.workload.model.num_visual_tokens
        assert len(prompt.input_ids) == 24 and prompt.num_tiles == tiles
        assert int((prompt.input_ids == TINY.workload.image_token_id).sum()) == visual


def test_report_has_the_shape_of_the_others() -> None:
    report = bench_generate(TINY, repeats=1)
    assert report.peers.keys() == report.ratios.keys() == {"one", "hf", "hf_one"}
    assert report.ratios["hf"] == report.ours["cpu_s"]["median"] / report.peers["hf"]["cpu_s"]["median"]
    assert report.setting["prompt_tokens"] == 24 and report.setting["repeats"] == 1


def test_greedy_answers_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = bench._peer_inputs
    monkeypatch.setattr(bench, "_peer_inputs", lambda prompt, dtype: draw(shuffled(prompt), dtype))
    with pytest.raises(InternVLLabError, match="greedy answers differ"):
        build_runs(TINY)


def shuffled(prompt: bench.Prompt) -> bench.Prompt:
    return replace(prompt, input_ids=np.concatenate([prompt.input_ids[:-6], prompt.input_ids[-6:][::-1]]))


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"new_tokens": 0}, {"size": "x"}, {"prompt_tokens": 8}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(TINY, **wrong)  # type: ignore[arg-type]
