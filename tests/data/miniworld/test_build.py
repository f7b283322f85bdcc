from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import pytest

from internvl_lab.config import MiniworldConfig
from internvl_lab.data.miniworld import build
from internvl_lab.data.miniworld.build import ensure_shards, is_complete, make_parallel
from internvl_lab.data.miniworld.sample import generate_range
from internvl_lab.data.miniworld.vocabulary import TASKS
from internvl_lab.errors import ConfigError

CFG = MiniworldConfig(num_pretrain=22, num_finetune=11, num_val=11, samples_per_shard=8)


def _contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.tar"))}


def _mtimes(root: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in root.rglob("*.tar")}


def test_splits_are_written_once(tmp_path: Path) -> None:
    folders = ensure_shards(CFG, tmp_path, num_processes=1)
    assert folders == {split: tmp_path / split for split in ("pretrain", "finetune", "val")}
    assert [len(list(folder.glob("*.tar"))) for folder in folders.values()] == [3, 2, 2]
    before = _mtimes(tmp_path)
    assert ensure_shards(CFG, tmp_path, num_processes=1) == folders
    assert _mtimes(tmp_path) == before


def test_only_the_split_whose_settings_changed_is_made_again(tmp_path: Path) -> None:
    ensure_shards(CFG, tmp_path, num_processes=1)
    before = _mtimes(tmp_path)
    other = MiniworldConfig(num_pretrain=22, num_finetune=11, num_val=3, samples_per_shard=8)
    ensure_shards(other, tmp_path, num_processes=1)
    after = _mtimes(tmp_path)
    assert {path for path in after if after[path] != before.get(path)} == {str(p) for p in tmp_path.glob("val/*.tar")}
    assert len(list(tmp_path.glob("val/*.tar"))) == 1


def test_damaged_shards_are_made_again(tmp_path: Path) -> None:
    folder = ensure_shards(CFG, tmp_path, num_processes=1)["val"]
    good = _contents(tmp_path)
    shard = sorted(folder.glob("*.tar"))[0]
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-512])
    ensure_shards(CFG, tmp_path, num_processes=1)
    assert _contents(tmp_path) == good
    sorted(folder.glob("*.tar"))[1].unlink()
    ensure_shards(CFG, tmp_path, num_processes=1)
    assert _contents(tmp_path) == good


def test_an_unfinished_build_has_no_stamp_and_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "write_shards", killed)
        ensure_shards(CFG, tmp_path, num_processes=1)
    assert not list(tmp_path.rglob(build.STAMP))
    assert len(_contents(ensure_shards(CFG, tmp_path, num_processes=1)["val"])) == 2


def test_bytes_do_not_depend_on_the_number_of_processes() -> None:
    job = ("finetune", 0, 150, 0, ("ocr", "chart", "text_only"))
    seen: list[int] = []
    assert list(make_parallel(job, 2, seen.append)) == list(generate_range(*job))
    assert seen == [64, 64, 22]


@pytest.mark.parametrize("text", ["", "[]", '{"hash": "x"}', '{"hash": "x", "shards": {"a.tar": 1}}'])
def test_bad_stamps_are_not_complete(tmp_path: Path, text: str) -> None:
    assert not is_complete(tmp_path, "x")
    (tmp_path / build.STAMP).write_text(text)
    assert not is_complete(tmp_path, "x")


def test_a_change_of_the_generator_makes_the_shards_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = MiniworldConfig(num_pretrain=0, num_finetune=0, num_val=4)
    folders = ensure_shards(cfg, tmp_path, num_processes=1)
    assert list(folders) == ["val"]
    first = json.loads((folders["val"] / build.STAMP).read_text())["hash"]
    monkeypatch.setattr(build, "source_hash", lambda: "changed")
    ensure_shards(cfg, tmp_path, num_processes=1)
    assert json.loads((folders["val"] / build.STAMP).read_text())["hash"] != first


def test_text_is_written_when_asked_for(tmp_path: Path) -> None:
    cfg = MiniworldConfig(num_pretrain=0, num_finetune=0, num_val=0, num_text=26)
    folders = ensure_shards(cfg, tmp_path, num_processes=1)
    assert list(folders) == ["text"]
    with tarfile.open(next(folders["text"].glob("*.tar"))) as tar:
        names = tar.getnames()
    assert len(names) == 26
    assert all(name.endswith("-text.json") for name in names)


def test_slow_tasks_come_twice_in_finetune_alone(tmp_path: Path) -> None:
    cfg = MiniworldConfig(num_pretrain=22, num_finetune=26, num_val=22, slow_tasks=("grounding", "ocr"))
    folders = ensure_shards(cfg, tmp_path, num_processes=1)
    for split, folder in folders.items():
        counts: Counter[str] = Counter()
        for path in folder.glob("*.tar"):
            with tarfile.open(path) as tar:
                records = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore[arg-type]
            counts.update(record["task"] for record in records)
        expected = {task: 4 if split == "finetune" and task in cfg.slow_tasks else 2 for task in TASKS}
        assert counts == expected, split
    with pytest.raises(ConfigError, match="chess"):
        ensure_shards(MiniworldConfig(slow_tasks=("chess",)), tmp_path)


def test_source_hash_is_stable() -> None:
    assert build.source_hash() == build.source_hash()
    assert len(build.source_hash()) == 16


def test_unknown_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chess"):
        ensure_shards(MiniworldConfig(tasks=("chess",)), tmp_path)


GENERATE = """
from internvl_lab.data.miniworld.build import make_parallel
from internvl_lab.training.stop import StopSignals
with StopSignals().caught():
    print("go", flush=True)
    for sample in make_parallel(("pretrain", 0, 4000, 1, ()), 2):
        pass
"""


@pytest.mark.slow
def test_a_signal_to_the_whole_group_ends_generation() -> None:
    """multiprocessing.Pool, which was here before, hung in 5 of 25 such stops."""
    draw = random.Random(3)
    for _ in range(8):
        command, pipe = [sys.executable, "-c", GENERATE], subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, start_new_session=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(draw.uniform(0.0, 1.0))
            os.killpg(process.pid, signal.SIGTERM)
            try:
                _, errors = process.communicate(timeout=60)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            assert process.returncode == 0 and b"Traceback" not in errors
