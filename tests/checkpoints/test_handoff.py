"""A stage is finished exactly when done.json is there, and hands over its own weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from internvl_lab.checkpoints import (
    handoff,
    last_stage_weights,
    load_model,
    stage_dir,
    stage_done,
    stage_provenance,
    stage_weights,
    write_stage,
)
from internvl_lab.checkpoints.tensors import sha256_of
from internvl_lab.errors import CheckpointError
from internvl_lab.models import InternVL

MakeModel = Callable[..., InternVL]


def test_a_finished_stage_hands_over_its_weights_with_provenance(
    run_dir: Path, make_model: MakeModel, same: Callable[..., dict[str, bool]]
) -> None:
    model = make_model()
    init = {"vision": {"source": "asset:internvit_300m", "sha256": "ab"}}
    assert not stage_done(run_dir, "stage1")
    write_stage(run_dir, "stage1", model, stage_provenance("stage1", 70, init, "c0ffee"))
    assert stage_done(run_dir, "stage1")
    weights = stage_weights(run_dir, "stage1")
    assert weights == run_dir / "stages" / "stage1" / "weights"
    assert all(same(model, load_model(weights)).values())
    done = json.loads((stage_dir(run_dir, "stage1") / "done.json").read_text())
    assert done["date"].startswith("20")
    assert {key: done[key] for key in ("stage", "steps", "init", "config_hash")} == {
        "stage": "stage1",
        "steps": 70,
        "init": init,
        "config_hash": "c0ffee",
    }
    assert done["weights_sha256"] == sha256_of(weights)


def test_a_stage_killed_before_the_mark_is_not_finished(
    run_dir: Path, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(handoff, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            write_stage(run_dir, "stage1", make_model(seed=1), {})
    assert not stage_done(run_dir, "stage1")
    with pytest.raises(CheckpointError, match=r"stage1 .* not finished"):
        stage_weights(run_dir, "stage1")
    write_stage(run_dir, "stage1", make_model(seed=2), {})
    assert stage_done(run_dir, "stage1")


def test_a_mark_without_its_weights_does_not_count(run_dir: Path, make_model: MakeModel) -> None:
    weights = write_stage(run_dir, "stage1", make_model(), {})
    provenance = weights / "provenance.json"
    content = json.loads(provenance.read_text())
    provenance.write_text(json.dumps(content | {"weights_sha256": "other"}))
    with pytest.raises(CheckpointError, match="disagree"):
        stage_weights(run_dir, "stage1")
    (weights / "model.safetensors").unlink()
    assert not stage_done(run_dir, "stage1")


def test_the_last_finished_stage_is_found(run_dir: Path, make_model: MakeModel) -> None:
    with pytest.raises(CheckpointError, match="no finished stage"):
        last_stage_weights(run_dir)
    write_stage(run_dir, "stage2", make_model(), {})
    last = write_stage(run_dir, "stage1_5", make_model(), {})
    assert last_stage_weights(run_dir) == last
