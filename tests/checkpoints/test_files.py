"""Files and folders appear whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from internvl_lab.checkpoints.files import new_folder, read_json, write_json
from internvl_lab.errors import CheckpointError


def test_json_round_trips_and_leaves_no_temporary(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, "ß"]})
    assert read_json(tmp_path / "a.json") == {"b": [1, "ß"]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_unreadable_json_names_the_file(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "weights"
    for name in ("old", "new"):
        with new_folder(folder) as new:
            (new / name).write_text(name)
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in folder.parent.iterdir()] == ["weights"]


def test_a_failed_write_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    with new_folder(folder) as new:
        (new / "old").write_text("old")
    with pytest.raises(RuntimeError), new_folder(folder) as new:
        (new / "half").write_text("half")
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_a_killed_process_leaves_nothing_that_stays(tmp_path: Path) -> None:
    """A half-written folder goes; the old one, killed between the two renames, comes back first."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder, other = tmp_path / "weights", tmp_path / ".weights.tmp-own"
    for name in (f".weights.tmp-{dead.pid}", f".weights.old-{dead.pid}", other.name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(RuntimeError), new_folder(folder):
        assert (folder / "file").read_text().startswith(".weights.old")
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "weights"]


def test_a_link_is_followed_and_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "weights").symlink_to(tmp_path / "disk")
    with new_folder(tmp_path / "weights") as new:
        (new / "file").write_text("")
    assert (tmp_path / "weights").is_symlink()
    assert (tmp_path / "disk" / "file").is_file()
    with pytest.raises(CheckpointError, match="cannot be written"), new_folder(tmp_path / "disk" / "file" / "x"):
        pass


def test_the_old_folder_survives_a_failed_rename(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    with pytest.raises(FileNotFoundError), new_folder(folder) as new:
        new.rmdir()
    assert folder.is_dir()
