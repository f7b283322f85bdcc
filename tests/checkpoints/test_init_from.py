"""Sources of a run: assets, folders, runs; one sentence when weights are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from internvl_lab.checkpoints import (
    base,
    check_sources,
    initialise,
    load_official,
    resolve_source,
    save_model,
    save_part,
    write_stage,
)
from internvl_lab.checkpoints.tensors import sha256_of
from internvl_lab.config import InitConfig, ModelConfig, VisionConfig
from internvl_lab.errors import CheckpointError, MissingWeightsError
from internvl_lab.models import InternVL

MakeModel = Callable[..., InternVL]
Same = Callable[[InternVL, InternVL], dict[str, bool]]


def test_each_part_comes_from_its_own_source(make_model: MakeModel, same: Same, tmp_path: Path) -> None:
    source, target = make_model(seed=1), make_model(seed=2)
    untouched = make_model(seed=2)
    vision = save_part(source, "vision", tmp_path / "vision", {})
    whole = save_model(source, tmp_path / "whole", {})
    provenance = initialise(target, InitConfig(vision=str(vision), language=str(whole)))
    assert same(source, target) == {"vision": True, "projector": False, "language": True}
    assert same(untouched, target)["projector"]
    assert provenance == {
        "vision": {"source": str(vision), "sha256": sha256_of(vision)},
        "projector": {"source": "random", "sha256": None},
        "language": {"source": str(whole), "sha256": sha256_of(whole)},
    }


def test_a_checkpoint_of_the_authors_is_a_source_too(golden: Path, same: Same) -> None:
    whole = load_official(golden / "6b_internlm2")
    target = InternVL(whole.config, whole.image_token_id)
    initialise(target, InitConfig(vision=str(golden / "6b_internlm2")))
    assert same(whole, target) == {"vision": True, "projector": False, "language": False}


def test_assets_are_found_in_the_package(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "files", lambda _package: tmp_path)
    save_part(make_model(), "vision", tmp_path / "assets" / "tiny", {})
    assert resolve_source("asset:tiny") == tmp_path / "assets" / "tiny"
    with pytest.raises(MissingWeightsError, match="assets/other"):
        resolve_source("asset:other")


def test_a_run_stands_for_its_last_finished_stage(make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    with pytest.raises(CheckpointError, match="no finished stage"):
        resolve_source(str(tmp_path))
    weights = write_stage(tmp_path, "stage1", make_model(), {})
    assert resolve_source(str(tmp_path)) == weights


def test_missing_weights_are_explained_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError) as caught:
        resolve_source(str(tmp_path / "vit"), "vision", "internvit_6b")
    message = str(caught.value)
    assert "\n" not in message
    for clue in (
        "model.vision (internvit_6b)",
        str(tmp_path / "vit"),
        "OpenGVLab/InternViT-6B-448px-V2_5",
        "init_from.vision=DIR",
        "scale=mini",
    ):
        assert clue in message


def test_sources_are_checked_before_anything_is_loaded(make_model: MakeModel, same: Same, tmp_path: Path) -> None:
    vision = save_part(make_model(seed=1), "vision", tmp_path / "vision", {})
    target = make_model(seed=2)
    with pytest.raises(MissingWeightsError, match=r"model\.language"):
        initialise(target, InitConfig(vision=str(vision), language=str(tmp_path / "nowhere")))
    assert all(same(make_model(seed=2), target).values())


def test_a_required_part_without_source_is_missing() -> None:
    config = replace(ModelConfig(), vision=VisionConfig(name="internvit_6b"))
    check_sources(InitConfig(), config)
    with pytest.raises(MissingWeightsError, match=r"internvit_6b.*no source is given"):
        check_sources(InitConfig(), config, required=("vision",))
