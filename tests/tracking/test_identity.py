"""Hash, revision and versions of a run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from internvl_lab.config import RunConfig
from internvl_lab.tracking import config_hash, git_revision, package_versions, write_identity
from internvl_lab.tracking.identity import IGNORED

CONFIG = {
    "seed": 42,
    "paths": {"output_dir": "outputs"},
    "trainer": {"devices": 1, "precision": "32-true"},
    "data": {"num_workers": 1, "loss_averaging": "square", "journal": False},
    "fresh": False,
    "axes": (1, 2),
}


def test_hash_is_ten_hex_digits_and_stable() -> None:
    assert config_hash(CONFIG) == "46b562fedf"


@pytest.mark.parametrize(
    "other",
    [
        {"paths": {"output_dir": "elsewhere"}},
        {"fresh": True},
        {"logger": {"wandb": {"mode": "online"}}},
        {"trainer": {"devices": 8, "strategy": "ddp", "precision": "32-true"}},
        {"data": {"num_workers": 8, "loss_averaging": "square", "journal": True}},
        {"axes": [1, 2]},
        {"plan": True, "ckpt_path": "x.ckpt"},
    ],
)
def test_what_does_not_change_the_result_does_not_change_the_hash(other: dict[str, object]) -> None:
    assert config_hash({**other, **{k: v for k, v in CONFIG.items() if k not in other}}) == config_hash(CONFIG)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 43},
        {"trainer": {"devices": 1, "precision": "bf16-mixed"}},
        {"data": {"num_workers": 1, "loss_averaging": "token", "journal": False}},
        {"new": None},
    ],
)
def test_what_changes_the_result_changes_the_hash(other: dict[str, object]) -> None:
    assert config_hash({**CONFIG, **other}) != config_hash(CONFIG)


def test_ignored_settings_exist() -> None:
    """A renamed setting would silently count again."""
    config = RunConfig()
    open_ended = {"trainer", "logger"}
    for name in IGNORED:
        first, _, rest = name.partition(".")
        assert hasattr(config, first), name
        if rest and first not in open_ended:
            assert hasattr(getattr(config, first), rest), name


def git(folder: Path, *arguments: str) -> None:
    """Run git with an identity of its own."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_revision_in_all_states_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision(tmp_path) is None
    git(tmp_path, "init")
    assert git_revision(tmp_path) is None
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    clean = git_revision(tmp_path)
    assert clean is not None and len(clean) == 40
    (tmp_path / "untracked").touch()
    assert git_revision(tmp_path) == clean
    (tmp_path / "file").write_text("2")
    assert git_revision(tmp_path) == f"{clean}-dirty"


def test_revision_without_git_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_revision(tmp_path / "missing") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(tmp_path) is None


def test_versions_name_what_can_change_a_result() -> None:
    versions = package_versions()
    assert {"python", "torch", "transformers", "lightning"} <= versions.keys()


def test_identity_keeps_every_start(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_identity(folder, CONFIG, ["seed=42"])
    write_identity(folder, CONFIG, ["seed=42", "fresh=false"])
    identity = json.loads((folder / "identity.json").read_text())
    assert identity["hash"] == config_hash(CONFIG)
    assert [start["overrides"] for start in identity["starts"]] == [["seed=42"], ["seed=42", "fresh=false"]]
    assert identity["starts"][0]["versions"]["torch"]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config_hash(config) == identity["hash"]
    assert yaml.safe_load((folder / "overrides.yaml").read_text()) == ["seed=42", "fresh=false"]
