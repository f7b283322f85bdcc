"""Converting one annotation: the same bytes from any number of workers, and after any interruption."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest

from internvl_lab.data.conversion import (
    JOURNAL,
    Job,
    Source,
    SourceReport,
    _convert,
    _note,
    convert_source,
    cut_jobs,
    join_rejected,
)
from internvl_lab.data.quarantine import to_lines
from internvl_lab.errors import ConfigError, ShardError

BEGIN = Job(-1, 0, 1, 0, 0)


@pytest.fixture
def source(tmp_path: Path, kit: SimpleNamespace) -> Source:
    """60 lines: texts, images, broken lines, a blank one, and a stretch of ten lines without a usable sample."""
    root = tmp_path / "files"
    root.mkdir()
    (root / "a.png").write_bytes(kit.picture())
    lines = []
    for i in range(60):
        image = {"image": "lost.png" if 20 <= i < 30 or i % 7 == 3 else "a.png"} if i % 2 or 20 <= i < 30 else {}
        lines.append("{broken" if i == 41 else "" if i == 50 else json.dumps({"conversations": kit.talk(), **image}))
    (root / "a.jsonl").write_text("\n".join(lines) + "\n")
    return Source("mine", root / "a.jsonl", root, samples_per_shard=10)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_jobs_cover_the_lines_and_can_begin_anywhere(source: Source) -> None:
    jobs = list(cut_jobs(source.annotation, 25, BEGIN))
    assert [(job.shard, job.first_line, job.lines) for job in jobs] == [(0, 1, 25), (1, 26, 25), (2, 51, 10)]
    data = source.annotation.read_bytes()
    assert b"".join(data[job.offset : job.stop] for job in jobs) == data
    assert list(cut_jobs(source.annotation, 25, jobs[0])) == jobs[1:]
    assert list(cut_jobs(source.annotation, 25, jobs[2])) == []


@pytest.mark.parametrize("num_workers", [2, 3])
def test_workers_change_no_byte(source: Source, tmp_path: Path, num_workers: int) -> None:
    alone = convert_source(source, tmp_path / "alone", 0, False)
    together = convert_source(source, tmp_path / "together", num_workers, False)
    assert together == alone and alone.shards == 5
    assert content(tmp_path / "together" / "mine") == content(tmp_path / "alone" / "mine")
    rejected = content(tmp_path / "alone" / "mine")["rejected.jsonl"].splitlines()
    assert alone.written + len(rejected) == 59 == alone.written + sum(alone.rejected.values())
    join_rejected([tmp_path / "alone" / "mine"], tmp_path / "all.jsonl")
    first = json.loads((tmp_path / "all.jsonl").read_text().splitlines()[0])
    assert first == {"source": "mine", **json.loads(rejected[0])}
    assert first["key"] == "mine-00000004" and first["reason"] == "missing_file" and "lost.png" in first["detail"]


@pytest.mark.parametrize("tear", [0, 5])
def test_goes_on_behind_the_last_whole_entry(source: Source, tmp_path: Path, tear: int) -> None:
    """As after a kill at any moment: shards beyond the journal, torn lines in both files, litter of a writer."""
    convert_source(source, tmp_path / "whole", 0, False)
    work = tmp_path / "again" / ".mine.partial"
    shutil.copytree(tmp_path / "whole" / "mine", work)
    (work / "shards.json").unlink()
    with (work / JOURNAL).open("wb") as journal, (work / "rejected.jsonl").open("wb") as rejected:
        journal.write(to_lines([source.settings()]).encode())
        for job in islice(cut_jobs(source.annotation, 10, BEGIN), 3):
            _note(_convert(job, source, work), journal, rejected, SourceReport(), [])
        rejected.write(b'{"key": "torn"'[:tear])
        journal.write(b'{"job": {"sha'[:tear])
    (work / ".shard-000004.tar.77.partial").write_bytes(b"half")
    os.utime(work / "shard-000000.tar", ns=(1, 1))
    convert_source(source, tmp_path / "again", 0, False)
    assert (tmp_path / "again" / "mine" / "shard-000000.tar").stat().st_mtime_ns == 1  # kept, not made again
    assert content(tmp_path / "again" / "mine") == content(tmp_path / "whole" / "mine")


def test_other_settings_are_refused(source: Source, tmp_path: Path) -> None:
    work = tmp_path / ".mine.partial"
    work.mkdir()
    (work / JOURNAL).write_text('{"version": 1, "name": "other"}\n')
    with pytest.raises(ConfigError, match="begun with other settings or another annotation"):
        convert_source(source, tmp_path, 0, False)


def test_two_runs_at_once_are_refused(source: Source, tmp_path: Path) -> None:
    (tmp_path / ".mine.partial").mkdir()
    with (tmp_path / ".mine.partial" / JOURNAL).open("a+b") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is converting"):
            convert_source(source, tmp_path, 0, False)


def test_a_full_disk_is_one_clear_error(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("internvl_lab.data.conversion.write_shard", full)
    with pytest.raises(ShardError, match=r"shard-000000\.tar cannot be written: .*No space left"):
        convert_source(source, tmp_path, 0, False)


@pytest.mark.slow
def test_kill_9_and_the_same_command_again(source: Source, tmp_path: Path) -> None:
    meta = {"mine": {"root": str(source.root), "annotation": str(source.annotation)}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    lines = source.annotation.read_text() * 40
    source.annotation.write_text(lines)

    def start(out: str) -> subprocess.Popen[bytes]:
        arguments = ["--meta", str(tmp_path / "meta.json"), "--out", str(tmp_path / out), "--samples-per-shard", "20"]
        command = [sys.executable, "-m", "internvl_lab", "shards", *arguments, "--workers", "2"]
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})

    assert start("whole").wait(120) == 0
    journal = tmp_path / "killed" / ".mine.partial" / JOURNAL
    for shards in (3, 60):
        run = start("killed")
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < shards:
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.001)
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert journal.read_bytes().count(b"\n") < 121
    assert start("killed").wait(120) == 0
    whole = content(tmp_path / "whole" / "mine")
    assert len(whole) > 100 and content(tmp_path / "killed" / "mine") == whole
    assert (tmp_path / "killed" / "rejected.jsonl").read_bytes() == (tmp_path / "whole" / "rejected.jsonl").read_bytes()
