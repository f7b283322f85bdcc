from __future__ import annotations

import numpy as np

from internvl_lab.config.curation import CurationConfig, RuleConfig, RulesConfig
from internvl_lab.curation.inputs import find_input, plan_chunks
from internvl_lab.curation.measure import Measuring, measure_chunk, read_scores, scores_path, signatures_path

SETTINGS = Measuring.of(CurationConfig())


def measured(path, folder, settings=SETTINGS):
    (chunk,) = plan_chunks(find_input(path))
    assert measure_chunk(chunk, settings, folder) == 9
    return dict(read_scores(scores_path(folder, 0)))


def test_each_fault_has_its_score(data, tmp_path):
    scores = measured(data, tmp_path)
    assert scores["mine:1"].keys() == {"blank_image"}
    assert scores["mine:2"]["longest_loop"].score > 120
    assert scores["mine:3"] == {}
    assert scores["mine:5"]["blank_image"].score == 1
    assert scores["mine:6"]["unreadable_image"].score == 1
    assert "missing.jpg" in scores["mine:6"]["unreadable_image"].detail
    assert scores["mine:7"]["zero_run"].score == 100
    assert scores["mine:9"]["malformed_record"].score == 1


def test_every_record_is_signed_and_even_one_without_text_is_told_apart(data, tmp_path):
    measured(data, tmp_path)
    with np.load(signatures_path(tmp_path, 0)) as rows:
        exact = [tuple(row) for row in rows["exact"].tolist()]
    assert len(exact) == 9
    assert exact[2] == exact[3]
    assert len(set(exact)) == 8


def test_findings_hold_no_address_of_an_object(data, tmp_path):
    (data.parent / "blank.jpg").write_bytes(b"<!doctype html>")
    detail = measured(data, tmp_path)["mine:5"]["unreadable_image"].detail
    assert detail == "corrupt_image: UnidentifiedImageError: cannot identify image file"


def test_images_can_be_left_alone(data, tmp_path):
    settings = Measuring.of(CurationConfig(read_images=False))
    scores = measured(data, tmp_path, settings)
    assert "unreadable_image" not in scores["mine:6"]
    assert not settings.near_images


def test_thresholds_are_no_part_of_what_is_measured():
    strict = CurationConfig(rules=RulesConfig(repeated_ngrams=RuleConfig(0.1, exempt=("x",))))
    assert Measuring.of(strict).fingerprint == SETTINGS.fingerprint
    spoken = CurationConfig(languages={"a": ("latin",)})
    assert Measuring.of(spoken).fingerprint != SETTINGS.fingerprint


def test_placeholders_that_do_not_fit_the_images(tmp_path):
    path = tmp_path / "p.jsonl"
    turn = '{"from": "human", "value": "<image> and <image>"}, {"from": "gpt", "value": "b"}'
    path.write_text(f'{{"image": "a.jpg", "conversations": [{turn}]}}\n' * 9)
    scores = measured(path, tmp_path)
    assert scores["p:1"]["placeholders"].score == 1
    assert "image_count" in scores["p:1"]["placeholders"].detail
