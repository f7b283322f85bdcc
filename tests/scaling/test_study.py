"""The study: skipping, retrying, failing, and surviving kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from internvl_lab.errors import ConfigError
from internvl_lab.scaling import Row, all_done, read_table, run_study
from internvl_lab.scaling.study import _only_process

ROWS = [Row("small", ("size=1",), "k1", 10), Row("large", ("size=2",), "k2", 20)]
WRITE = """
import json, os, pathlib, sys
run, score = pathlib.Path(sys.argv[1]), float(sys.argv[2])
run.mkdir(parents=True, exist_ok=True)
with (run / "starts").open("a") as file: file.write(f"{os.getpid()} {os.getpgid(0)}\\n")
print("working")
"""
REPORT = """
metrics = {"overall": {"score": score, "blind": 0.1, "n": 4}, "tasks": {"ocr": {"score": score, "blind": 0.1, "n": 4}}}
(run / "metrics.json").write_text(json.dumps(metrics))
(run / "finished.json").write_text(json.dumps({"train_s": 1.5, "seed": 0}))
"""


class Study:
    """Run dummy rows in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "study"
        self.programs = dict.fromkeys((row.label for row in ROWS), WRITE + REPORT)

    def run_dir(self, row: Row) -> Path:
        return self.folder.parent / "runs" / row.slug

    def command(self, row: Row) -> list[str]:
        score = {"small": "0.25", "large": "0.5"}[row.label]
        return [sys.executable, "-c", self.programs[row.label], str(self.run_dir(row)), score]

    def run(self, rows: list[Row] | None = None, jobs: int = 1) -> list:  # type: ignore[type-arg]
        given = (ROWS if rows is None else rows, self.command, self.folder)
        return run_study(*given, run_dir=self.run_dir, revision="r1", jobs=jobs)

    def starts(self, label: str) -> int:
        path = self.folder.parent / "runs" / label / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def test_every_row_is_a_process_group_of_its_own(study: Study) -> None:
    results = study.run()
    assert all_done(results) and [r.score for r in results] == [0.25, 0.5]
    assert [(r.label, r.params, r.revision, r.attempts) for r in results] == [
        ("small", 10, "r1", 1),
        ("large", 20, "r1", 1),
    ]
    assert read_table(study.folder) == results
    groups = {(study.run_dir(row) / "starts").read_text() for row in ROWS}
    assert len(groups) == 2
    for line in groups:
        pid, group = map(int, line.split())
        assert pid == group != os.getpgid(0)
    assert "working" in (study.folder / "logs" / "small.log").read_text()


def test_done_rows_are_skipped(study: Study) -> None:
    first = study.run(ROWS[:1])
    second = study.run()
    assert second[0] == first[0] and all_done(second)
    assert (study.starts("small"), study.starts("large")) == (1, 1)


def test_another_configuration_runs_again(study: Study) -> None:
    study.run()
    study.run([replace(ROWS[0], key="other"), ROWS[1]])
    assert (study.starts("small"), study.starts("large")) == (2, 1)


def test_a_failing_row_is_tried_twice_and_leaves_the_others(study: Study) -> None:
    study.programs["small"] = WRITE + "raise SystemExit('no memory, sorry')"
    results = study.run()
    assert not all_done(results)
    assert (results[0].status, results[0].attempts, results[0].score) == ("failed", 2, None)
    assert results[0].error == "exit status 1: no memory, sorry"
    assert results[1].status == "done" and results[1].score == 0.5
    assert study.starts("small") == 2
    assert read_table(study.folder) == results


def test_a_row_that_succeeds_the_second_time_is_done(study: Study) -> None:
    study.programs["small"] = WRITE + "if len((run / 'starts').read_text().splitlines()) < 2: sys.exit(3)" + REPORT
    results = study.run()
    assert all_done(results) and results[0].attempts == 2 and results[0].error == ""


def test_a_failed_row_runs_again_on_the_next_start(study: Study) -> None:
    study.programs["small"] = WRITE + "sys.exit(3)"
    assert study.run()[0].error == "exit status 3: working"
    study.programs["small"] = WRITE + REPORT
    assert all_done(study.run())
    assert (study.starts("small"), study.starts("large")) == (3, 1)


def test_a_run_without_report_fails(study: Study) -> None:
    study.programs["large"] = WRITE
    results = study.run()
    assert results[1].status == "failed" and "finished.json" in results[1].error


def test_a_program_that_is_not_there_fails(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "command", lambda row: ["/no/such/program"])
    results = study.run(ROWS[:1])
    assert results[0].status == "failed" and "No such file" in results[0].error


def test_the_environment_reaches_the_runs(study: Study) -> None:
    study.programs["small"] = WRITE + "score = float(os.environ['SCORE'])" + REPORT
    env = {**os.environ, "SCORE": "0.875"}
    results = run_study(ROWS[:1], study.command, study.folder, run_dir=study.run_dir, env=env)
    assert results[0].score == 0.875


def test_two_processes_cannot_run_one_study(study: Study) -> None:
    study.folder.mkdir(parents=True)
    with _only_process(study.folder), pytest.raises(ConfigError, match="another process"):
        study.run()
    assert all_done(study.run())


def test_an_interrupt_ends_the_run_and_all_it_started(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    child = "import subprocess, time; p = subprocess.Popen(['sleep', '60']); (run / 'child').write_text(str(p.pid))\n"
    study.programs["small"] = WRITE + child + "time.sleep(60)"
    wait = subprocess.Popen.wait
    interrupted: list[int] = []

    def interrupt(self: subprocess.Popen, timeout: float | None = None) -> int:  # type: ignore[type-arg]
        if interrupted:
            return wait(self, timeout)
        interrupted.append(self.pid)
        wait_for(study.run_dir(ROWS[0]) / "child")
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        study.run()
    assert gone(interrupted[0])
    assert gone(int((study.run_dir(ROWS[0]) / "child").read_text()))
    monkeypatch.undo()
    study.programs["small"] = WRITE + REPORT
    assert all_done(study.run())


def test_a_stopped_study_lets_the_row_save_first(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    polite = (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: ((run / 'saved').write_text('x'), exit(0)))\n"
    )
    study.programs["small"] = WRITE + polite + "(run / 'ready').write_text('x')\ntime.sleep(60)"

    def stop(futures: object) -> NoReturn:
        wait_for(study.run_dir(ROWS[0]) / "ready")
        raise SystemExit(0)

    monkeypatch.setattr("internvl_lab.scaling.study.as_completed", stop)
    with pytest.raises(SystemExit):
        study.run()
    assert (study.run_dir(ROWS[0]) / "saved").exists()
    assert gone(int((study.run_dir(ROWS[0]) / "starts").read_text().split()[0]))
    assert (study.starts("small"), study.starts("large")) == (1, 0)
    assert read_table(study.folder) == []


def test_two_rows_run_side_by_side_and_the_failure_of_one_leaves_the_other(study: Study) -> None:
    """Each row waits for the other's start, so that neither could end if they ran one after the other."""
    meet = (
        "import time\nother = run.parent / {'small': 'large', 'large': 'small'}[run.name] / 'starts'\n"
        "while not other.exists(): time.sleep(0.02)\n"
    )
    study.programs = {"small": WRITE + meet + "raise SystemExit('no memory, sorry')", "large": WRITE + meet + REPORT}
    results = study.run(jobs=2)
    assert [(r.label, r.status, r.score) for r in results] == [("small", "failed", None), ("large", "done", 0.5)]
    assert results[0].error == "exit status 1: no memory, sorry" and not all_done(results)
    assert (study.starts("small"), study.starts("large")) == (2, 1)
    assert read_table(study.folder) == results


def test_an_interrupt_ends_all_rows_that_run(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.programs = dict.fromkeys(study.programs, WRITE + "import time; time.sleep(60)")

    def interrupt(futures: object) -> NoReturn:
        for row in ROWS:
            wait_for(study.run_dir(row) / "starts")
        raise KeyboardInterrupt

    monkeypatch.setattr("internvl_lab.scaling.study.as_completed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        study.run(jobs=2)
    for row in ROWS:
        assert gone(int((study.run_dir(row) / "starts").read_text().split()[0]))
        assert study.starts(row.label) == 1, "a stopped row is not tried again"


def test_each_place_has_its_own_environment(study: Study) -> None:
    """Two rows in two places, and then in one, which is free again when the first has ended."""
    gpu = "score = float(os.environ['GPU'])"
    study.programs = dict.fromkeys(study.programs, WRITE + gpu + REPORT)
    slots = [{"GPU": "0.25"}, {"GPU": "0.75"}]
    results = run_study(ROWS, study.command, study.folder, run_dir=study.run_dir, jobs=2, slots=slots)
    assert sorted(r.score for r in results if r.score is not None) == [0.25, 0.75]
    again = run_study(
        [replace(row, key="again") for row in ROWS],
        study.command,
        study.folder,
        run_dir=study.run_dir,
        slots=slots[:1],
    )
    assert [r.score for r in again] == [0.25, 0.25]


def test_no_jobs_are_refused(study: Study) -> None:
    with pytest.raises(ConfigError, match="jobs=0"):
        study.run(jobs=0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' parent-death signal")
def test_a_killed_study_leaves_no_run_and_resumes(study: Study) -> None:
    """kill -9 while the second row runs: its process dies too, and the next start repeats only that row."""
    study.programs["large"] = WRITE + "import time; time.sleep(60)"
    script = """
        import json, pathlib, sys
        from internvl_lab.scaling import Row, run_study
        commands, folder = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
        rows = [Row("small", ("size=1",), "k1", 10), Row("large", ("size=2",), "k2", 20)]
        place = lambda row: folder.parent / "runs" / row.slug
        run_study(rows, lambda row: commands[row.label], folder, run_dir=place, revision="r1")
    """
    commands = json.dumps({row.label: study.command(row) for row in ROWS})
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), commands, str(study.folder)], env=path)
    try:
        wait_for(study.run_dir(ROWS[1]) / "starts")
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert gone(int((study.run_dir(ROWS[1]) / "starts").read_text().split()[0]))
    assert [(r.label, r.status) for r in read_table(study.folder)] == [("small", "done"), ("large", "pending")]
    study.programs["large"] = WRITE + REPORT
    resumed = study.run()
    assert (study.starts("small"), study.starts("large")) == (1, 2)
    fresh = Study(study.folder.parent / "again").run()
    assert [replace(r, run_dir="") for r in resumed] == [replace(r, run_dir="") for r in fresh]


def wait_for(path: Path, timeout_s: float = 30) -> None:
    """Wait until a file has content."""
    end = time.monotonic() + timeout_s
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def gone(pid: int, timeout_s: float = 10) -> bool:
    """Say whether a process ends; one that nobody has waited for (a zombie) has ended."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False
